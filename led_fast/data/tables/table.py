"""A table in bounded memory: its numbers in a mapped file, its labels as codes."""

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from led_fast.errors import InputError

_CHUNK = 65_536


@dataclass(frozen=True)
class Labels:
    """The values of one ignored column as text, a code per row.

    Attributes:
        name: the column.
        categories: its different values; a missing one is "".
        codes: (n,) int32, positions in categories.
    """

    name: str
    categories: tuple[str, ...]
    codes: np.ndarray

    def __len__(self) -> int:
        """How many rows."""
        return len(self.codes)

    def take(self, rows: np.ndarray | slice) -> list[str]:
        """The texts of some rows."""
        return [self.categories[code] for code in self.codes[rows]]

    def equal(self, value: str, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Which rows hold a value: the same text, or the same number written otherwise (`3` finds `3.0`).

        Returns:
            (len(rows),) bool.

        Raises:
            InputError: no row of the table holds it. The message lists what there is.
        """
        same = [c == value or _same_number(c, value) for c in self.categories]
        if not any(same):
            there = ", ".join(map(repr, self.categories[:20])) + (", …" if len(self.categories) > 20 else "")
            raise InputError(f"column {self.name!r}: want one of its values, {there}, got {value!r}")
        return np.array(same)[self.codes[rows]]


def _same_number(one: str, other: str) -> bool:
    try:
        return float(one) == float(other)
    except ValueError:
        return False


@dataclass(frozen=True)
class Table:
    """Rows of finite numbers with named columns, and the labels beside them.

    The numbers stay on disk, in a mapped file of their own: `take` and `chunks` bring rows into memory as float64.

    Attributes:
        place: the file they came from, for messages.
        names: (D,) the columns, in order.
        dtypes: (D,) "int", "float" or "bool", as the file writes them.
        values: (n, ≥ D) the numbers in the type in which they are kept.
        picked: (D,) which columns of `values` are the table's.
        labels: the ignored columns, by name.
        notes: what was done to the file's content, one sentence each.
        header: whether the names are the file's own.
    """

    place: str
    names: tuple[str, ...]
    dtypes: tuple[str, ...]
    values: np.ndarray
    picked: tuple[int, ...]
    labels: dict[str, Labels] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    header: bool = True

    def __len__(self) -> int:
        """How many rows."""
        return len(self.values)

    def take(self, rows: np.ndarray | slice) -> np.ndarray:
        """Some rows, (m, D) float64, in memory of their own."""
        part = self.values[rows]
        if self.picked != tuple(range(part.shape[1])):
            part = part[:, list(self.picked)]
        return np.array(part, dtype=np.float64, order="C")

    def mapped(self) -> np.ndarray:
        """All rows, (n, D) float64, in a mapped file, not to be written."""
        values = self.values
        if (
            values.dtype == np.float64
            and values.flags.c_contiguous
            and self.picked == tuple(range(values.shape[1]))
        ):
            return values
        with copying(self.place):
            store = RowStore(len(self.names))
            for _, part in self.chunks():
                store.append(part)
            return store.close()

    def chunks(self, rows: int = _CHUNK) -> Iterator[tuple[slice, np.ndarray]]:
        """All rows in order, in parts: (which rows, their values (m, D) float64)."""
        for start in range(0, len(self), rows):
            where = slice(start, min(start + rows, len(self)))
            yield where, self.take(where)


class RowStore:
    """An anonymous temporary file that rows are appended to, then mapped; it goes when its last user does."""

    def __init__(self, columns: int, dtype: np.dtype | type = np.float64) -> None:
        """Opens the file where `tempfile` puts temporary files (TMPDIR)."""
        self._file = tempfile.TemporaryFile(prefix="led_fast_table_")  # noqa: SIM115, the map keeps it
        self._columns, self._dtype, self._rows = columns, dtype, 0

    def append(self, rows: np.ndarray) -> None:
        """Adds rows, (m, columns)."""
        self._file.write(np.ascontiguousarray(rows, dtype=self._dtype).tobytes())
        self._rows += len(rows)

    def close(self) -> np.ndarray:
        """All rows, (n, columns), mapped, not to be written."""
        shape = (self._rows, self._columns)
        if math.prod(shape) == 0:
            return np.empty(shape, self._dtype)
        self._file.flush()
        mapped = np.memmap(self._file, dtype=self._dtype, mode="c", shape=shape)  # as tensors want it
        self._file.close()
        return mapped


@contextmanager
def copying(place: str | Path) -> Iterator[None]:
    """Says of which file a copy does not fit where temporary files go."""
    try:
        yield
    except OSError as error:
        folder = tempfile.tempdir or "TMPDIR"
        raise InputError(f"{place}: cannot be copied to {folder} ({error})") from None
