"""Results as columns: CSV or .npy, whole or not at all."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from led_fast.data.text import write_csv, written
from led_fast.errors import InputError
from led_fast.files import replacing
from led_fast.kinds.kind import Rows


def write_rows(rows: Rows, out: Path | None) -> None:
    """Writes columns as .npy, (rows, columns), where `out` ends so, else as CSV; to standard output without `out`.

    Raises:
        InputError: text as .npy.
    """
    forms = {name: _form(rows.formats.get(name, ".15g")) for name in rows.columns}
    if out is None:
        write_csv(sys.stdout, rows.columns, forms)
    elif out.suffix == ".npy":
        write_array(out, _numbers(rows, out))
    else:
        with replacing(out) as path, path.open("w", newline="", encoding="utf-8") as file:
            write_csv(file, rows.columns, forms)


def write_array(out: Path, array: np.ndarray) -> None:
    """Writes an array as .npy."""
    with replacing(out) as path, path.open("wb") as file:
        np.save(file, array)


def _form(of_floats: str) -> Callable[[Any], str]:
    return lambda value: format(value, of_floats) if isinstance(value, float) else written(value)


def _numbers(rows: Rows, out: Path) -> np.ndarray:
    texts = [name for name, values in rows.columns.items() if len(values) and isinstance(values[0], str)]
    if texts:
        raise InputError(f"--out {out}: want a .csv file, because {', '.join(texts)} is text")
    return np.column_stack([np.asarray(values, dtype=np.float64) for values in rows.columns.values()])
