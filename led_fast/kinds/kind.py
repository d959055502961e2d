"""What a kind of data brings: how it is opened, its networks, its training, and what can be said of a finished model.

`training` and `cli` know kinds by this protocol alone. A new kind is one file, and `register`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from led_fast.density import DensityModel
from led_fast.training.config import Reading, TrainConfig
from led_fast.training.model import TrainedModel
from led_fast.training.settings import Recipe
from led_fast.training.task import Source, Task
from led_fast.training.world import World


class Preset(NamedTuple):
    """Networks, as the kind's own frozen dataclass, and how they are trained."""

    model: Any
    recipe: Recipe


@dataclass(frozen=True)
class EvaluateOptions:
    """What `led-fast evaluate` is asked beyond a report; a kind reads those that it names in `can`.

    Attributes:
        features: of the Fréchet distance: `classifier` or a file.
        ood: data that should be less dense.
        samples: how many samples and weights; None: the kind's default.
        refined: whether samples of the density itself are judged, too.
        anomaly: `COLUMN=VALUE`, the rows that should be less dense.
        first: whether this is the report at the end of training, which is to be quick.
    """

    features: str | None = None
    ood: tuple[Path, ...] = ()
    samples: int | None = None
    refined: bool = False
    anomaly: str | None = None
    first: bool = False


@dataclass(frozen=True)
class Report:
    """An evaluation: JSON values for report.json, tables for people, and pictures.

    Attributes:
        values: as docs/report.md describes them.
        tables: one row a quantity.
        pictures: what writes a picture, by the file's name; `density.png` is the first to look at.
    """

    values: dict[str, Any]
    tables: Sequence[Table]
    pictures: Mapping[str, Callable[[Path], None]]


@dataclass(frozen=True)
class Rows:
    """A table to write: names of columns, and their values.

    Attributes:
        columns: values by name, numbers or text, all of one length; arrays, where there may be many.
        formats: how numbers of a column are written as text, where it is not by all their digits.
    """

    columns: Mapping[str, Sequence[Any] | np.ndarray]
    formats: Mapping[str, str] = field(default_factory=dict)


class Kind(Protocol):
    """A kind of data.

    Attributes:
        name: as configs and reports hold it.
        about: the same for people, e.g. "images".
        presets: names of pairs of networks and recipe.
        model_type: the frozen dataclass of what a config holds of this kind: networks and settings of its own.
        can: options and commands that mean something for this kind beyond those that do for every kind, e.g.
            "--strict".
        gan: what a config changes for a plain GAN, by dotted names; None where there is none of this kind.
        parallel: whether several processes can train one model together.
        default_samples: how many samples `led-fast sample` draws.
        sample_suffixes: of the files that it can write them to.
        score_suffixes: of the files that log densities can be written to.
    """

    name: str
    about: str
    presets: Sequence[str]
    model_type: type
    can: frozenset[str]
    gan: Mapping[str, Any] | None
    parallel: bool
    default_samples: int
    sample_suffixes: tuple[str, ...]
    score_suffixes: tuple[str, ...]

    def claims(self, place: str, reading: Reading) -> bool:
        """Whether what lies at a place is of this kind, where no preset says it; InputError if it cannot be read."""
        ...

    def open(self, place: str, preset: str | None, reading: Reading) -> Source:
        """Opens data to learn from; InputError where that cannot be."""
        ...

    def remarks(self, source: Source) -> list[str]:
        """What was noted when the data were opened, one line each."""
        ...

    def configure(self, source: Source, preset: str | None) -> tuple[str, Preset]:
        """The name and the content of a preset for data; None: the one that suits them."""
        ...

    def device(self) -> torch.device:
        """Where networks of this kind compute."""
        ...

    def float32_only(self, model: Any) -> str:
        """What networks of a config of `model_type` are, if they lose too much in bfloat16; empty if not."""
        ...

    def task(self, config: TrainConfig, source: Source, world: World) -> Task:
        """Fresh networks, and all that training asks."""
        ...

    def untrained(self, config: TrainConfig) -> DensityModel:
        """A model that a finished one's state can be loaded into."""
        ...

    def evaluate(
        self, trained: TrainedModel, source: Source, options: EvaluateOptions, console: Console
    ) -> Report | None:
        """Measures a finished run; None where it has nothing to measure."""
        ...

    def score(self, trained: TrainedModel, place: Path, console: Console) -> Rows:
        """Log densities of a user's data, in their order; InputError where they do not fit the model."""
        ...

    def write_samples(
        self, trained: TrainedModel, n: int, refine: bool, seed: int, out: Path | None, note: str
    ) -> None:
        """Draws n samples and writes them; `note` is to be seen on pictures that show densities.

        InputError where they cannot be written in the form of `out`.
        """
        ...
