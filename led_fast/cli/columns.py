"""Results as columns of numbers: CSV or .npy, whole or not at all."""

import io
import sys
from pathlib import Path

import numpy as np

from led_fast.files import write_atomically


def write_columns(columns: np.ndarray, names: list[str], out: Path | None) -> None:
    """Writes columns (rows, names) as .npy where `out` ends so, else as CSV; to standard output without `out`."""
    if out is not None and out.suffix == ".npy":
        write_array(out, columns)
        return
    text = io.StringIO()
    np.savetxt(text, columns, fmt="%.15g", delimiter=",", header=",".join(names), comments="")
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
