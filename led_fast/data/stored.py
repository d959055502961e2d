"""NumPy's `.npy` files, read a part at a time."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from led_fast.errors import InputError, first_line

_BLOCK = 1 << 20  # bytes
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class StoredArray:
    """An array in a file of NumPy's form, whose rows are read when they are asked for.

    The file is not mapped, because a process that touches a mapped file which was cut short meanwhile is killed.

    Args:
        file: at its beginning.
        size: of the file, in bytes.
        place: what messages call it.

    Attributes:
        shape: of the array.
        dtype: of the array.
        fortran: whether its first dimension is the fastest: reading then wants a file that can seek.

    Raises:
        ValueError, or whatever NumPy raises: no header, a file shorter than its shape wants, Python objects.
    """

    def __init__(self, file: IO[bytes], size: int, place: str) -> None:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"of version {version}")
        self.shape, self.fortran, self.dtype = _HEADERS[version](file)
        self._file, self._place, self._start = file, place, file.tell()
        if self.dtype.hasobject:
            raise ValueError("an array of Python objects")
        wanted, got = math.prod(self.shape) * self.dtype.itemsize, size - self._start
        if min(self.shape, default=0) < 0 or wanted > got:
            raise ValueError(f"dtype {self.dtype} and shape {self.shape} want {wanted} bytes, got {got}")

    def whole(self) -> np.ndarray:
        """The whole array."""
        return self._rows(0, self.shape[0])

    def parts(self, rows: int) -> Iterator[np.ndarray]:
        """The array in order, so many rows at a time.

        Raises:
            InputError: the file cannot be read on, e.g. because it was cut short meanwhile.
        """
        for start in range(0, self.shape[0], rows):
            yield self._rows(start, min(rows, self.shape[0] - start))

    def _rows(self, start: int, count: int) -> np.ndarray:
        columns = math.prod(self.shape[1:])
        if not self.fortran:
            return self._read(count * columns).reshape(count, *self.shape[1:])
        turned = np.empty((columns, count), self.dtype)
        for column, out in enumerate(turned):
            self._file.seek(self._start + (column * self.shape[0] + start) * self.dtype.itemsize)
            out[:] = self._read(count)
        return turned.reshape(*self.shape[:0:-1], count).transpose()

    def _read(self, items: int) -> np.ndarray:
        wanted, content = items * self.dtype.itemsize, bytearray()
        try:
            while block := self._file.read(min(_BLOCK, wanted - len(content))):
                content += block
        except Exception as error:  # zipfile raises whatever a damaged file leads it to
            raise InputError(f"{self._place}: cannot be read ({first_line(error)})") from None
        if len(content) < wanted:
            raise InputError(f"{self._place}: was cut short while it was read")
        return np.frombuffer(content, self.dtype)


@contextmanager
def open_npy(path: Path) -> Iterator[StoredArray]:
    """Opens a `.npy` file.

    Raises:
        InputError: no such file, shorter than its shape wants, or an array of Python objects.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: not a readable .npy array ({first_line(error)})") from None
    with file:
        try:
            stored = StoredArray(file, os.fstat(file.fileno()).st_size, str(path))
        except Exception as error:  # NumPy raises whatever a damaged header leads it to
            raise InputError(f"{path}: not a readable .npy array ({first_line(error)})") from None
        yield stored
