"""Arrays as tables: a .npy file, or an array in memory."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from led_fast.data.stored import open_npy
from led_fast.data.tables.schema import (
    MOST_CATEGORIES,
    all_missing,
    choose,
    made_up_names,
    not_finite,
    not_kept,
    report_missing,
    rounded_integer,
    unnamed,
)
from led_fast.data.tables.table import Labels, RowStore, Table, copying
from led_fast.errors import InputError

_VALUES = 1 << 20  # that are copied at a time


def table_of(values: np.ndarray, names: Sequence[str] | None = None, place: str = "table") -> Table:
    """A table over an array that is in memory already.

    Args:
        values: (n, D) or (n,) finite real numbers.
        names: (D,) the columns; None calls them x1, …, xD.
        place: what messages call it.

    Raises:
        InputError: another shape or type, an integer that float64 rounds, or a value that is not finite.

    Example:
        >>> import numpy as np
        >>> from led_fast.data.tables import table_of
        >>> table_of(np.ones((3, 2)), names=["height", "width"]).names
        ('height', 'width')
    """
    values, dtype = _checked(np.asarray(values), place)
    columns = made_up_names(values.shape[1]) if names is None else tuple(names)
    everything = tuple(range(values.shape[1]))
    table = Table(place, columns, (dtype,) * len(columns), values, everything, header=names is not None)
    _whole_rows(Path(place), table, drop=False)
    return table


def read_npy(path: Path, ignore: Sequence[str], drop_missing: bool, columns: Sequence[str] | None) -> Table:
    """Reads a `.npy` file, see `read_table`."""
    values, dtype = _copied(path)
    names = made_up_names(values.shape[1])
    choice = choose(path, names, False, ignore, columns)
    kinds = (dtype,) * len(choice.names)
    table = Table(str(path), choice.names, kinds, values, choice.modelled, header=False)
    whole, notes = _whole_rows(path, table, drop_missing)
    found = {names[i]: _labels(names[i], values[:, i]) for i in choice.labels}
    notes += [not_kept(name) for name, kept in found.items() if kept is None]
    labels = {name: kept for name, kept in found.items() if kept is not None}
    first = unnamed(names, "a .npy file names no columns")
    table = replace(table, labels=labels, notes=(first, *choice.notes, *notes))
    return table if whole is None else _only(table, whole)


def npy_names(path: Path) -> tuple[str, ...]:
    """The columns of a `.npy` file, see `column_names`."""
    with open_npy(path) as stored:
        return made_up_names(_form(stored.dtype, stored.shape, str(path))[1])


def _copied(path: Path) -> tuple[np.ndarray, str]:
    """(the array with two dimensions, in a mapped file of our own; its type's name)."""
    with open_npy(path) as stored, copying(path):
        dtype, columns = _form(stored.dtype, stored.shape, str(path))
        store = RowStore(columns, stored.dtype)
        for part in stored.parts(max(1, _VALUES // columns)):
            store.append(part)
        return store.close(), dtype


def _checked(values: np.ndarray, place: str) -> tuple[np.ndarray, str]:
    """(the array with two dimensions, its type's name)."""
    dtype, columns = _form(values.dtype, values.shape, place)
    return values.reshape(-1, columns), dtype


def _form(of: np.dtype, shape: tuple[int, ...], place: str) -> tuple[str, int]:
    """(the name of an array's type, how many columns it has)."""
    if of == np.bool_:
        dtype = "bool"
    elif of.kind in "iu":
        dtype = "int"
    elif np.issubdtype(of, np.floating) and of.itemsize <= 8:
        dtype = "float"
    else:
        raise InputError(f"{place}: want an array of real numbers of at most 64 bits, got dtype {of}")
    if len(shape) not in (1, 2):
        advice = "; images want a --preset of images" if len(shape) > 2 else ""
        raise InputError(f"{place}: want an array of shape (rows, columns), got shape {shape}{advice}")
    if 0 in shape:
        raise InputError(f"{place}: holds no rows")
    return dtype, shape[1] if len(shape) == 2 else 1


def _whole_rows(path: Path, table: Table, drop: bool) -> tuple[np.ndarray | None, list[str]]:
    """(which rows miss nothing, None where all do; notes); InputError for a value that cannot be used."""
    first = None
    filled = np.zeros(len(table.names), dtype=np.int64)
    whole = np.ones(len(table), dtype=bool)
    for where, part in table.chunks():
        infinite = np.argwhere(np.isinf(part))
        if len(infinite):
            row, column = infinite[0]
            raise not_finite(path, table.names[column], where.start + row + 1, part[row, column])
        _refuse_rounded(path, table, where, part)
        missing = np.isnan(part)
        filled += (~missing).sum(0)
        whole[where] = ~missing.any(1)
        if first is None and missing.any():
            row, column = np.argwhere(missing)[0]
            first = (table.names[column], where.start + row + 1)
    empty = [name for name, count in zip(table.names, filled, strict=True) if count == 0]
    if empty:
        raise all_missing(path, empty)
    if first is None:
        return None, []
    return whole, report_missing(path, *first, int((~whole).sum()), len(table), drop)


def _refuse_rounded(path: Path, table: Table, where: slice, part: np.ndarray) -> None:
    """Raises InputError where float64 has lost digits of an integer."""
    if table.values.dtype.kind not in "iu":
        return
    for row, column in np.argwhere(np.abs(part) >= 2.0**53):
        exact = int(table.values[where.start + row, table.picked[column]])
        if exact != int(part[row, column]):
            raise rounded_integer(path, table.names[column], where.start + row + 1, exact)


def _labels(name: str, values: np.ndarray) -> Labels | None:
    categories, codes = np.unique(values, return_inverse=True)
    if len(categories) > MOST_CATEGORIES:
        return None
    texts = tuple("" if value != value else str(value) for value in categories.tolist())
    return Labels(name, texts, codes.astype(np.int32))


def _only(table: Table, whole: np.ndarray) -> Table:
    """Some rows of a table, copied to a file of their own."""
    with copying(table.place):
        store = RowStore(len(table.names))
        for where, part in table.chunks():
            store.append(part[whole[where]])
        values = store.close()
    labels = {name: replace(labels, codes=labels.codes[whole]) for name, labels in table.labels.items()}
    return replace(table, values=values, picked=tuple(range(len(table.names))), labels=labels)
