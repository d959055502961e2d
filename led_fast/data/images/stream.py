"""Images from any place that is recognised, some at a time."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import overload

import torch
from torch import Tensor

from led_fast.data.images.arrays import stream_arrays
from led_fast.data.images.cifar import CifarFiles, stream_cifar
from led_fast.data.images.folder import FolderStream
from led_fast.data.images.idx import IdxFiles, stream_idx_folder
from led_fast.data.images.read import pad_28, recognise
from led_fast.errors import InputError


class ImageStream:
    """The images that `read_images` reads, in the same order, some of them in memory at a time.

    Gray pictures of a folder become RGB where the shape is; a picture of colours where it is gray is an error. One of
    CIFAR's files is in memory at a time, and the whole of an array of an `.npz` file in Fortran's order.

    Args:
        path: as of `read_images`.
        shape: (C, H, W) that all images must have.

    Raises:
        InputError: nothing there, or nothing recognised.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> path = Path(tempfile.mkdtemp()) / "images.npy"
        >>> np.save(path, np.random.default_rng(0).integers(0, 256, (200, 8, 8), dtype=np.uint8))
        >>> from led_fast.data.images import ImageStream
        >>> stream = ImageStream(path, (1, 8, 8))
        >>> [len(part) for part in stream.parts(150)], stream.names[199]
        ([150, 50], 'train[199]')
    """

    def __init__(self, path: str | Path, shape: tuple[int, int, int]) -> None:
        self._path, self._shape = Path(path), shape
        self._found, self._notes = recognise(self._path)
        self._folder: FolderStream | None = None
        if isinstance(self._found, IdxFiles | CifarFiles):
            self._notes += self._found.notes
        elif not isinstance(self._found, Path):
            self._folder = FolderStream(self._found, shape[-1], color=shape[0] == 3)
        self._counts: Counter[str] = Counter()
        self._files: list[str] = []

    @property
    def names(self) -> Sequence[str]:
        """Of the images that were read so far: their files, or `train[i]` or `test[i]` where a file holds many."""
        return _Numbered(self._counts) if self._folder is None else self._files

    @property
    def skipped(self) -> tuple[str, ...]:
        """One message for each picture so far that could not be used."""
        return () if self._folder is None else tuple(self._folder.skipped)

    @property
    def notes(self) -> tuple[str, ...]:
        """What else was passed over, and what was done to the pictures so far, one sentence each."""
        return self._notes if self._folder is None else (*self._notes, *self._folder.notes)

    def parts(self, size: int) -> Iterator[Tensor]:
        """Gives all images, once: (n, C, H, W) uint8, n = `size` but for the last of train and the last of test.

        Raises:
            InputError: images of another shape, or a file that is not what it should be; maybe at the last part.
        """
        for _, parts in groupby(self._read(), key=itemgetter(0)):
            yield from _in_batches((images for _, images in parts), size)

    def _read(self) -> Iterator[tuple[str, Tensor]]:
        for title, images in self._images():
            images = pad_28(images)
            if (got := tuple(images.shape[1:])) != self._shape:
                raise InputError(f"{self._path}: want images of shape {self._shape}, got {got}")
            self._counts[title] += len(images)
            yield title, images

    def _images(self) -> Iterator[tuple[str, Tensor]]:
        if isinstance(self._found, Path):
            yield from stream_arrays(self._found)
        elif isinstance(self._found, IdxFiles):
            yield from stream_idx_folder(self._found)
        elif isinstance(self._found, CifarFiles):
            yield from stream_cifar(self._found)
        elif self._folder is not None:
            for title, files, images in self._folder.parts():
                self._files += files
                yield title, images


class _Numbered(Sequence[str]):
    """`train[0]`, `train[1]`, …, `test[0]`, …, each made when it is asked for."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._train, self._length = counts["train"], sum(counts.values())

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        places = range(self._length)[index]
        return self._name(places) if isinstance(places, int) else [self._name(place) for place in places]

    def _name(self, place: int) -> str:
        return f"train[{place}]" if place < self._train else f"test[{place - self._train}]"


def _in_batches(parts: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """Parts of any length as batches of one length; the last has what is left."""
    left: list[Tensor] = []
    for part in parts:
        *batches, last = torch.cat([*left, part]).split(size)
        yield from batches
        left = [last]
    yield from left
