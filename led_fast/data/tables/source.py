"""A table as training data: fixed splits, noise within the cells of discrete columns, location and scale."""

import hashlib
import json
import math
from collections.abc import Mapping
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from led_fast.data.tables.columns import describe
from led_fast.data.tables.table import Table
from led_fast.errors import InputError
from led_fast.flows import Marginal

SPLITS = ("train", "validation", "test")
_HELD_OUT = 0.1  # of the rows each for validation and test
_SPLIT_SEED = 0
_FEWEST_ROWS = 100
_MARGINAL_ROWS = 200_000


class TableSource:
    """The modelled columns of a table, split for training.

    A permutation with a fixed seed, the same in every run, splits the rows: the first tenth is test, the second
    validation, the rest train. Rows are given in the data's own units. A value of a discrete column stands for a cell
    as wide as a step, centred at it; `dequantize` draws from the cell, and densities are of such draws.

    Attributes:
        kind: "tables".
        name: where the table came from.
        fingerprint: sha256 of the modelled columns' names and values; a run resumes on the same content only.
        columns: (D,) what is modelled.
        constants: the columns that hold one value.
        notes: what was done to the table, one sentence each.
        named: whether the columns' names are the table's own.
        shift: (D,) float64, the mean of the dequantised training rows.
        scale: (D,) float64, their standard deviation: training happens in (x - shift) / scale.

    Example:
        >>> import numpy as np
        >>> from led_fast.data.tables import TableSource, table_of
        >>> rows = np.random.default_rng(0).normal(size=(500, 3))
        >>> source = TableSource("rows", table_of(rows))
        >>> [column.name for column in source.columns], source.sample(5).shape
        (['x1', 'x2', 'x3'], torch.Size([5, 3]))
    """

    kind = "tables"

    def __init__(
        self,
        name: str,
        table: Table,
        fewest: int = _FEWEST_ROWS,
        splits: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Analyses and splits a table of at least `fewest` rows; `splits` holds their numbers for splits of one's own.

        Raises:
            InputError: fewer rows, columns of which `describe` says that they have no density, or a spread
                beyond float64.
        """
        if len(table) < fewest:
            raise InputError(f"{name}: want at least {fewest} rows to learn from, got {len(table)}")
        self.name = name
        self.columns, self.constants, notes = describe(table)
        self.notes = (*table.notes, *notes)
        self.named = table.header
        self._table = table
        self._positions = [column.position for column in self.columns]
        self._steps = torch.tensor([column.step for column in self.columns], dtype=torch.float64)
        generator = torch.Generator("cpu").manual_seed(_SPLIT_SEED)
        order = torch.randperm(len(table), generator=generator, dtype=torch.int32, device="cpu").numpy()
        tenth = int(len(table) * _HELD_OUT)
        self._rows = splits or {
            "test": order[:tenth],
            "validation": order[tenth : 2 * tenth],
            "train": order[2 * tenth :],
        }
        self.fingerprint, self.shift, self.scale = self._summarise()

    @cached_property
    def marginal(self) -> Marginal:
        """The histograms of standardised training rows, as many rows as tell their shape.

        Raises:
            InputError: a continuous column holds one value in them.
        """
        rows = self.rows("train", _MARGINAL_ROWS)
        for column, low, high in zip(self.columns, rows.amin(0), rows.amax(0), strict=True):
            if low == high and not column.discrete:
                raise InputError(
                    f"{self.name}: column {column.name!r} is {low.item():g} in {len(rows)} training rows, too often "
                    f"to learn how it is distributed; leave it out with --ignore {column.name}"
                )
        return Marginal.fit((rows - self.shift) / self.scale, self._steps / self.scale)

    def size(self, split: str) -> int:
        """How many rows a split has."""
        return len(self._rows[split])

    def rows(self, split: str, limit: int | None = None) -> Tensor:
        """The rows of a split ("train", "validation" or "test"), as in the file.

        Args:
            split: which.
            limit: at most so many, always the same ones.

        Returns:
            (n, D) float64, in the split's own random order.
        """
        return self._take(self._rows[split][:limit])

    def sample(self, n: int) -> Tensor:
        """Draws n training rows with replacement, (n, D) float64, by torch's global CPU generator."""
        chosen = torch.randint(self.size("train"), (n,), device="cpu").numpy()
        return self._take(self._rows["train"][chosen])

    def dequantize(self, rows: Tensor) -> Tensor:
        """Adds uniform noise of one step, centred, to the discrete columns, by torch's global generator."""
        return rows + (torch.rand_like(rows) - 0.5) * self._steps.to(rows)

    def held_out(self, n: int) -> Tensor:
        """At most n test rows, dequantised, (≤ n, D) float64."""
        return self.dequantize(self.rows("test", n))

    def has_label(self, name: str, value: str, split: str, limit: int | None = None) -> Tensor:
        """Which rows of `rows(split, limit)` hold a value in an ignored column, see `Labels.equal`; (n,) bool.

        Raises:
            InputError: no such column was ignored, or no row of the table holds the value.
        """
        if name not in self._table.labels:
            there = ", ".join(self._table.labels) or "none"
            raise InputError(
                f"{self.name}: no column {name!r} was ignored, and so none is a label; there are: {there}"
            )
        return torch.from_numpy(self._table.labels[name].equal(value, self._rows[split][:limit]))

    def _take(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(self._table.take(rows)[:, self._positions]))

    def _summarise(self) -> tuple[str, Tensor, Tensor]:
        """(fingerprint, shift, scale), in one pass; moments are merged chunk by chunk (Chan, Golub, LeVeque 1983)."""
        digest = hashlib.sha256(json.dumps([column.name for column in self.columns]).encode())
        training = np.zeros(len(self._table), dtype=bool)
        training[self._rows["train"]] = True
        lowest = np.array([column.low for column in self.columns])  # far from 0, sums would lose digits
        with np.errstate(over="ignore"):
            spans = np.array([column.high for column in self.columns]) - lowest
        unit = np.ldexp(
            1.0, np.frexp(spans)[1] // 2
        )  # in which squares neither overflow nor vanish; rounds nothing
        count, mean, spread = 0, np.zeros(len(self.columns)), np.zeros(len(self.columns))
        with np.errstate(over="ignore", invalid="ignore"):
            for where, part in self._table.chunks():
                part = np.ascontiguousarray(part[:, self._positions])
                digest.update(part.tobytes())
                part = (part[training[where]] - lowest) / unit
                if not len(part):
                    continue
                centre = part.mean(0)
                away, total = centre - mean, count + len(part)
                spread += ((part - centre) ** 2).sum(0) + away**2 * (count * len(part) / total)
                mean += away * (len(part) / total)
                count = total
        scale = torch.from_numpy(np.sqrt(spread / (count - 1)) * unit).hypot(self._steps / math.sqrt(12))
        for column, size in zip(self.columns, scale.tolist(), strict=True):
            if not 0 < size < math.inf:
                what = "is constant in the training rows" if size == 0 else "has a spread beyond float64"
                raise InputError(f"{self.name}: column {column.name!r} {what}: there is no density to learn")
        return digest.hexdigest(), torch.from_numpy(lowest + mean * unit), scale
