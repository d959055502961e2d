"""Rows of numbers from a user's .npy or .csv file, with errors that say which row."""

import csv
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from led_fast.errors import InputError


def read_rows(path: str | Path, columns: int = 2) -> Tensor:
    """Reads a table of finite numbers.

    Args:
        path: a `.npy` array of shape (rows, columns), or a `.csv` file with or without one header line.
        columns: how many columns the caller can use.

    Returns:
        The rows, (n, columns), float64.

    Raises:
        InputError: an unknown suffix, a file that cannot be parsed, the wrong number of columns, no rows, or
            a value that is not finite. The message names the file and, where there is one, the row (from 1).
    """
    path = Path(path)
    readers = {".npy": _read_npy, ".csv": _read_csv}
    if path.suffix not in readers:
        raise InputError(f"{path}: want a .npy or .csv file, got suffix {path.suffix!r}")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    rows = readers[path.suffix](path)
    if rows.size == 0:
        raise InputError(f"{path}: holds no rows")
    if rows.ndim != 2 or rows.shape[1] != columns:
        raise InputError(f"{path}: want shape (rows, {columns}), got {rows.shape}")
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if bad.size:
        more = f" (and {bad.size - 1} more)" if bad.size > 1 else ""
        raise InputError(f"{path}: row {bad[0] + 1}{more} is not finite: {rows[bad[0]].tolist()}")
    return torch.from_numpy(rows)


def _read_npy(path: Path) -> np.ndarray:
    try:
        with path.open("rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(f"{path}: not a readable .npy array ({error})") from None
    if not (np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)):
        raise InputError(f"{path}: want an array of real numbers, got dtype {array.dtype}")
    return array.astype(np.float64)


def _read_csv(path: Path) -> np.ndarray:
    rows: list[list[float]] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for line, fields in enumerate(filter(None, csv.reader(file))):
                where = f"{path}: row {len(rows) + 1}"
                try:
                    row = [float(field) for field in fields]
                except ValueError:
                    if line == 0 and not any(map(_is_number, fields)):  # a header
                        continue
                    raise InputError(f"{where} is not all numbers: {','.join(fields)!r}") from None
                rows.append(row)
                if len(row) != len(rows[0]):
                    raise InputError(f"{where} has {len(row)} columns, row 1 has {len(rows[0])}")
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a readable .csv file ({error})") from None
    return np.array(rows, dtype=np.float64)


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True
