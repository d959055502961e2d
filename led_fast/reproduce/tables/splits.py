"""Which rows train, choose and judge: the same for LED and all its rivals."""

from dataclasses import dataclass

import numpy as np

from led_fast.data.tables import describe, table_of
from led_fast.reproduce.tables.datasets import LabelledTable

_TRAIN_TO, _VALIDATION_TO = 0.7, 0.8  # shares of the rows; the rest is the test
_MOST_JUDGED = 5000  # normal rows, and as many odd ones, that an anomaly score is judged on
_TEST_NOISE = 1_000_000  # added to a split's seed: test rows get one noise, whoever is tested


@dataclass(frozen=True)
class Rows:
    """Rows as they stand in the table, and the lattices that discrete columns lie on.

    Attributes:
        values: (n, D), float64.
        steps: (D,), the width of a discrete column's cells, 0 for a continuous column.
    """

    values: np.ndarray
    steps: np.ndarray

    def dequantized(self, random: np.random.Generator) -> np.ndarray:
        """The rows with uniform noise over their cells, (n, D); every density is one of these."""
        return self.values + (random.random(self.values.shape) - 0.5) * self.steps


@dataclass(frozen=True)
class Split:
    """What a model may learn from, and what it is judged by.

    Attributes:
        train: rows to fit.
        validation: rows to choose by, of training moments, widths, numbers of components.
        test: (n, D), dequantised once.
        odd: (m, D), dequantised once, rows of classes that no model was fitted to; None where the question is the
            likelihood alone.
    """

    train: Rows
    validation: Rows
    test: np.ndarray
    odd: np.ndarray | None = None


def likelihood_split(table: LabelledTable, seed: int) -> Split:
    """All rows in an order of the seed: .7 train, .1 validate, .2 test."""
    return _split(table, table.values, seed)


def anomaly_split(table: LabelledTable, seed: int) -> Split:
    """Rows of normal classes in .7, .1 and .2, at most 5,000 of which are judged, beside at most 5,000 odd rows.

    Args:
        table: has labels and `normal` classes.
        seed: of the order of rows.
    """
    if table.labels is None or not table.normal:
        raise ValueError(f"anomaly_split: table must have labels and normal classes, got {table.name!r}")
    normal = np.isin(table.labels, table.normal)
    odd = table.values[~normal]
    odd = odd[np.random.default_rng(seed).permutation(len(odd))[:_MOST_JUDGED]]
    return _split(table, table.values[normal], seed, odd)


def _split(table: LabelledTable, values: np.ndarray, seed: int, odd: np.ndarray | None = None) -> Split:
    order = np.random.default_rng(seed).permutation(len(values))
    first, second = int(_TRAIN_TO * len(values)), int(_VALIDATION_TO * len(values))
    train, validation, test = (values[part] for part in np.split(order, [first, second]))
    varying = train.min(axis=0) < train.max(axis=0)  # a constant column has no density
    train, validation, test = (part[:, varying] for part in (train, validation, test))
    seen = table_of(
        np.concatenate([train, validation]), np.array(table.columns)[varying].tolist(), table.name
    )
    steps = np.array([column.step for column in describe(seen)[0]])
    noise = np.random.default_rng(seed + _TEST_NOISE)
    if odd is not None:
        test = test[:_MOST_JUDGED]
        odd = Rows(odd[:, varying], steps).dequantized(noise)
    return Split(Rows(train, steps), Rows(validation, steps), Rows(test, steps).dequantized(noise), odd)
