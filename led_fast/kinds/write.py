"""Results as columns: CSV or .npy, whole or not at all."""

import csv
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np

from led_fast.errors import InputError
from led_fast.files import write_atomically
from led_fast.kinds.kind import Rows


def write_rows(rows: Rows, out: Path | None) -> None:
    """Writes columns as .npy, (rows, columns), where `out` ends so, else as CSV; to standard output without `out`.

    Raises:
        InputError: text as .npy.
    """
    if out is not None and out.suffix == ".npy":
        write_array(out, _numbers(rows, out))
        return
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(rows.columns)
    forms = [rows.formats.get(name, ".15g") for name in rows.columns]
    for row in zip(*rows.columns.values(), strict=True):
        table.writerow([_written(value, form) for value, form in zip(row, forms, strict=True)])
    write_text(text.getvalue(), out)


def write_array(out: Path, array: np.ndarray) -> None:
    """Writes an array as .npy."""
    content = io.BytesIO()
    np.save(content, array)
    write_atomically(out, content.getvalue())


def write_text(text: str, out: Path | None) -> None:
    """Writes text to a file, or to standard output without one."""
    if out is None:
        sys.stdout.write(text)
    else:
        write_atomically(out, text.encode())


def _written(value: Any, form: str) -> str:
    return format(value, form) if isinstance(value, float) else str(value)


def _numbers(rows: Rows, out: Path) -> np.ndarray:
    texts = [name for name, values in rows.columns.items() if values and isinstance(values[0], str)]
    if texts:
        raise InputError(f"--out {out}: want a .csv file, because {', '.join(texts)} is text")
    return np.column_stack([np.asarray(values, dtype=np.float64) for values in rows.columns.values()])
