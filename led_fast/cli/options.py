"""Options that commands share, and their checks."""

from pathlib import Path
from typing import Annotated, TypeVar

from tyro.conf import Positional, UseAppendAction, arg

from led_fast.cli.data import require
from led_fast.errors import InputError
from led_fast.kinds import find_kind
from led_fast.training import RunDirectory, TrainConfig, TrainedModel, load_model

T = TypeVar("T")
Several = UseAppendAction[tuple[tuple[T, ...], ...]]
"""Values of an option that may be given again, each time with one value or more: none takes the place of another."""
Run = Annotated[Positional[Path], arg(metavar="RUN")]
Output = Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="(default: CSV on standard output)")]


def check_seed(seed: int) -> None:
    """InputError where torch would not take the seed."""
    if not 0 <= seed < 2**63:
        raise InputError(f"--seed: want a number from 0 to 2^63 - 1, got {seed}")


def check_new(out: Path | None, suffixes: tuple[str, ...]) -> None:
    """InputError where an output file exists, has no folder, or a suffix that the command cannot write."""
    if out is None:
        return
    if out.suffix not in suffixes:
        raise InputError(f"--out {out}: want a file that ends in {', '.join(suffixes)}")
    if out.exists():
        raise InputError(f"--out {out}: exists already, and nothing is overwritten")
    if not out.parent.is_dir():
        raise InputError(f"--out {out}: there is no folder {out.parent}")


def check_density(run: Path, config: TrainConfig) -> None:
    """InputError where a run is of a plain GAN, whose critic is a classifier."""
    if not config.recipe.has_density:
        raise InputError(f"{run}: is a plain GAN, which has no density; led-fast sample draws from it")


def load_run_for(command: str, path: Path) -> TrainedModel:
    """Loads a finished run, on its kind's device, for a command that not every kind of data has; InputError there."""
    trained = load_model(RunDirectory.open(path))
    kind = find_kind(trained.config.kind)
    require(kind, command)
    return trained._replace(model=trained.model.to(kind.device()))
