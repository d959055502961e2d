"""The tables that LED and its rivals are compared on."""

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from led_fast.data.tables import column_names, read_table
from led_fast.data.tables.schema import AdvisedError
from led_fast.errors import InputError
from led_fast.reproduce.tables.synthetic import SyntheticDensity, edges, mixture

_LABEL = "class"  # the label's column in all files
_SYNTHETIC: dict[str, Callable[[], SyntheticDensity]] = {"mixture": mixture, "edges": edges}
_SYNTHETIC_ROWS, _SYNTHETIC_SEED = 26_000, 7
FILES = ("letter", "shuttle", "satellite")
NAMES = (*FILES, "digits", *_SYNTHETIC)
ANOMALIES = FILES
"""Tables that have classes to be told apart from the others."""


@dataclass(frozen=True)
class LabelledTable:
    """A table of numbers with its labels apart, or with the density that it was drawn from.

    Attributes:
        name: of the data set.
        values: (n, D), float64.
        columns: their D names.
        labels: (n,), None where there are none.
        normal: the classes that an anomaly detector is fitted to; empty where that is no question.
        truth: None where the density is unknown.
    """

    name: str
    values: np.ndarray
    columns: tuple[str, ...]
    labels: np.ndarray | None = None
    normal: tuple[str, ...] = ()
    truth: SyntheticDensity | None = None

    @property
    def fingerprint(self) -> str:
        """Identifies the values: a result is of the same content only."""
        return hashlib.sha256(self.values.tobytes()).hexdigest()

    def first(self, rows: int) -> "LabelledTable":
        """The table of the first rows alone."""
        labels = None if self.labels is None else self.labels[:rows]
        return replace(self, values=self.values[:rows], labels=labels)


def available(name: str) -> bool:
    """Whether a data set can be had: digits is scikit-learn's."""
    return name != "digits" or find_spec("sklearn") is not None


def open_dataset(name: str, directory: str | Path) -> LabelledTable:
    """Reads or draws a data set.

    Args:
        name: one of `NAMES`.
        directory: holds `letter.csv`, `shuttle.csv` and `satellite.csv`, each with a column `class`: LetterRecognition,
            Shuttle and Satellite of the R package mlbench.

    Raises:
        InputError: the file is missing, or is not what is wanted; the message names it.
    """
    if name in _SYNTHETIC:
        truth = _SYNTHETIC[name]()
        values = truth.sample(_SYNTHETIC_ROWS, np.random.default_rng(_SYNTHETIC_SEED))
        columns = tuple(f"x{j}" for j in range(1, values.shape[1] + 1))
        return LabelledTable(name, values, columns, truth=truth)
    if name == "digits":
        from sklearn.datasets import load_digits

        digits = load_digits()
        values = digits.data.astype(np.float64)
        return LabelledTable(name, values, tuple(digits.feature_names), digits.target.astype(str))
    if name not in FILES:
        raise ValueError(f"open_dataset: name must be one of {', '.join(NAMES)}, got {name!r}")
    values, columns, labels = _read(Path(directory) / f"{name}.csv")
    return LabelledTable(name, values, columns, labels, _normal(name, labels))


def _read(path: Path) -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
    """Values, their columns' names and the labels of a file."""
    if not path.is_file():
        wanted = ", ".join(f"{name}.csv" for name in FILES)
        raise InputError(
            f"{path}: no such file; --data DIR must hold {wanted}, of R's package mlbench: see README"
        )
    if _LABEL not in (names := column_names(path)):
        raise InputError(f"{path}: want a column {_LABEL!r}, got {', '.join(names)}")
    try:
        table = read_table(path, ignore=[_LABEL])
    except AdvisedError as error:  # what it advises is for other commands
        raise InputError(error.said) from None
    everything = slice(None)
    return table.take(everything), table.names, np.array(table.labels[_LABEL].take(everything))


def _normal(name: str, labels: np.ndarray) -> tuple[str, ...]:
    """Shuttle: the one frequent class; letter: three; satellite: all but the three rarest."""
    if name == "shuttle":
        return ("Rad.Flow",)
    if name == "letter":
        return ("A", "B", "C")
    return tuple(label for label, _ in Counter(labels.tolist()).most_common()[:-3])
