"""Results as columns of numbers: CSV or .npy."""

import sys
from pathlib import Path

import numpy as np


def write_columns(columns: np.ndarray, names: list[str], out: Path | None) -> None:
    """Writes columns (rows, names) as .npy where `out` ends so, else as CSV; to standard output without `out`."""
    if out is not None and out.suffix == ".npy":
        np.save(out, columns)
    else:
        np.savetxt(
            out or sys.stdout, columns, fmt="%.15g", delimiter=",", header=",".join(names), comments=""
        )
