"""Rows with named columns to a .csv, .tsv, .parquet or .npy file, in the types of the table they are like."""

import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from led_fast.data.tables.columns import Column, Constant, round_to_lattice
from led_fast.data.tables.engine import connect
from led_fast.data.text import write_csv
from led_fast.errors import InputError
from led_fast.files import replacing

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_SQL = {"int": "BIGINT", "bool": "BOOLEAN", "float": "DOUBLE"}


def check_suffix(path: Path | None) -> None:
    """Raises InputError where `write_table` could not write such a file: call it before the work.

    Example:
        >>> from pathlib import Path
        >>> from led_fast.data.tables import check_suffix
        >>> check_suffix(Path("rows.parquet"))
    """
    if path is not None and path.suffix.lower() not in (*_SEPARATORS, ".parquet", ".npy"):
        raise InputError(
            f"{path}: want a .csv, .tsv, .parquet or .npy file to write, got suffix {path.suffix!r}"
        )


def write_table(
    path: Path | None, columns: Sequence[Column], values: np.ndarray, constants: Sequence[Constant] = ()
) -> None:
    """Writes rows as their table has them: names, order and types.

    Values of discrete columns go to the nearest point of their lattice, those of integer columns to whole numbers,
    constant columns come back to their places. Other numbers are written in the shortest form that reads back the
    same. `.npy` has no names; it is of int64 or bool where all columns are, else float64. The file is replaced at
    once or not at all.

    Args:
        path: by its suffix a `.csv`, `.tsv`, `.parquet` or `.npy` file; None writes CSV to stdout.
        columns: (D,) the columns of `values`.
        values: (n, D) float64, finite.
        constants: columns to put back.

    Raises:
        InputError: another suffix, or no folder to write to.

    Example:
        >>> import numpy as np
        >>> from led_fast.data.tables import describe, table_of, write_table
        >>> columns, constants, _ = describe(table_of(np.arange(100.0)[:, None] % 7, names=["day"]))
        >>> write_table(None, columns, np.array([[2.0], [3.0]]), constants)
        day
        2.0
        3.0
    """
    check_suffix(path)
    named = _in_place(columns, np.asarray(values, dtype=np.float64), constants)
    if path is None:
        _write_text(sys.stdout, ",", named)
        return
    if not path.parent.is_dir():
        raise InputError(f"{path}: no folder {path.parent} to write to")
    with replacing(path) as file:
        _write(file, path.suffix.lower(), named)


def _in_place(
    columns: Sequence[Column], values: np.ndarray, constants: Sequence[Constant]
) -> list[tuple[str, str, np.ndarray]]:
    """(name, dtype, values of that dtype) of each column of the file, in its order."""
    if values.ndim != 2 or values.shape[1] != len(columns):
        raise ValueError(f"write_table: values must have shape (n, {len(columns)}), got {values.shape}")
    placed = [(c.position, c.name, c.dtype, round_to_lattice(c, values[:, j])) for j, c in enumerate(columns)]
    placed += [(c.position, c.name, c.dtype, np.full(len(values), c.value)) for c in constants]
    return [
        (name, dtype, _typed(dtype, content))
        for _, name, dtype, content in sorted(placed, key=lambda p: p[0])
    ]


def _typed(dtype: str, values: np.ndarray) -> np.ndarray:
    if dtype == "int":
        return np.rint(values).clip(-(2.0**63), np.nextafter(2.0**63, 0)).astype(np.int64)
    if dtype == "bool":
        return values >= 0.5
    return values + 0.0  # no -0


def _write(path: Path, suffix: str, named: list[tuple[str, str, np.ndarray]]) -> None:
    if suffix == ".npy":
        with path.open("wb") as array:
            np.save(array, np.stack([values for _, _, values in named], axis=1))
    elif suffix in _SEPARATORS:
        with path.open("w", newline="", encoding="utf-8") as text:
            _write_text(text, _SEPARATORS[suffix], named)
    else:
        _write_parquet(path, named)


def _write_parquet(path: Path, named: list[tuple[str, str, np.ndarray]]) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="led_fast_") as folder,
        connect(Path(folder)) as connection,
    ):
        rows, target = Path(folder) / "rows.csv", Path(folder) / "rows.parquet"
        with rows.open("w", newline="") as file:
            _write_text(file, ",", [(f"c{i}", dtype, values) for i, (_, dtype, values) in enumerate(named)])
        kinds = ", ".join(f"'c{i}': '{_SQL[dtype]}'" for i, (_, dtype, _) in enumerate(named))
        names = [name.replace('"', '""') for name, _, _ in named]
        picked = ", ".join(f'c{i} AS "{name}"' for i, name in enumerate(names))
        source = f"read_csv('{rows}', auto_detect = false, header = true, delim = ',', columns = {{{kinds}}})"
        connection.execute(f"COPY (SELECT {picked} FROM {source}) TO '{target}' (FORMAT parquet)")
        shutil.copyfile(target, path)  # which may lie on another file system, and have any name


def _write_text(file: IO[str], separator: str, named: list[tuple[str, str, np.ndarray]]) -> None:
    words = {True: "true", False: "false"}
    forms = {name: words.__getitem__ if dtype == "bool" else repr for name, dtype, _ in named}
    write_csv(file, {name: values for name, _, values in named}, forms, separator)
