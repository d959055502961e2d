""".npy files, mapped where they lie."""

from pathlib import Path

import numpy as np

from led_fast.errors import InputError, first_line


def map_array(path: Path) -> np.ndarray:
    """A `.npy` file's array, not to be written, of whatever shape and type the file states.

    Raises:
        InputError: no such file, shorter than its shape wants, or an array of Python objects.
    """
    try:
        return np.lib.format.open_memmap(path, mode="c")  # copy on write, as tensors want it
    except Exception as error:  # NumPy raises whatever a damaged header leads it to
        raise InputError(f"{path}: not a readable .npy array ({first_line(error)})") from None
