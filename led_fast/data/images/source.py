"""Images as a source of training batches."""

import hashlib
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from led_fast.data.images.collection import ImageCollection, ImageSet
from led_fast.data.images.dequantize import dequantize
from led_fast.data.images.read import DEFAULT_SIZE, read_images
from led_fast.errors import InputError
from led_fast.gpu import is_gpu

Split = Literal["train", "validation", "test"]

_HELD_OUT_SHARE = 0.1
_SPLIT_SEED = 0
_FEWEST_IMAGES = 100


class ImageSource:
    """Images in memory, split once and for all, dequantised uniformly whenever they are drawn.

    All images are one uint8 tensor (MNIST 60 MB, CIFAR-10 180 MB), so a batch is one gather: there is nothing
    that worker processes or a prefetch queue could hide. On the way to a GPU a batch travels as bytes, from
    pinned memory, and becomes float32 there.

    A fixed tenth of the training images is the validation split; where the data has no test images of its own,
    another tenth is the test split. Both are the same in every run.

    Args:
        name: what a run records, e.g. the path.
        collection: from `read_images`.
        fewest: how many training images there must be; less than 100 only where nothing learns from them.

    Attributes:
        kind: "images".
        name: as given.
        fingerprint: identifies the pixels; a run resumes on the same ones only.
        shape: (C, H, W).
        problems: one message for each picture that could not be used.
        notes: what else was passed over, and what was done to the pictures, one sentence each.

    Raises:
        InputError: fewer training images than that.

    Example:
        >>> import torch
        >>> from led_fast.data.images import ImageCollection, ImageSet, ImageSource
        >>> levels = torch.randint(0, 256, (200, 1, 8, 8), dtype=torch.uint8)
        >>> ImageSource("noise", ImageCollection(ImageSet(levels))).sample(5).shape
        torch.Size([5, 1, 8, 8])
    """

    kind = "images"

    def __init__(self, name: str, collection: ImageCollection, fewest: int = _FEWEST_IMAGES) -> None:
        count = len(collection.train.images)
        if count < fewest:
            raise InputError(f"{name}: want at least {fewest} images to learn from, got {count}")
        self.name = name
        self.problems, self.notes = collection.skipped, collection.notes
        self.fingerprint = _fingerprint(collection)
        self._splits = _split(collection)
        channels, height, width = collection.train.images.shape[1:]
        self.shape = (channels, height, width)

    @property
    def labels(self) -> Tensor | None:
        """Classes of the training images, (N,) int64, None where there are none."""
        return self.split_labels("train")

    def split(self, split: Split) -> Tensor:
        """All images of a split, (N, C, H, W) uint8."""
        return self._splits[split].images

    def split_labels(self, split: Split) -> Tensor | None:
        """The classes of a split's images, (N,) int64, None where there are none."""
        return self._splits[split].labels

    def sample(self, n: int, device: torch.device | str = "cpu") -> Tensor:
        """Draws n training images with replacement, dequantised: (n, C, H, W) float32 in (0, 1).

        The images are chosen by torch's global CPU generator, the noise by that of `device`.
        """
        return dequantize(self.draw(n, device).to(device, non_blocking=True))

    def draw(self, n: int, device: torch.device | str = "cpu") -> Tensor:
        """The bytes of `sample`, on the host: (n, C, H, W) uint8, pinned where `device` is a GPU."""
        images = self.split("train")
        batch = images[torch.randint(len(images), (n,), device="cpu")]
        return batch.pin_memory() if is_gpu(device) else batch

    def held_out(self, n: int, split: Split = "test") -> Tensor:
        """At most n images that training never sees, dequantised: (≤ n, C, H, W) float32 in (0, 1).

        A fixed choice of images; the noise comes from torch's global generator.
        """
        images = self.split(split)
        order = _shuffled(len(images))
        return dequantize(images[order[:n]])


def open_images(path: str | Path, strict: bool = False, size: int = DEFAULT_SIZE) -> ImageSource:
    """Opens images as training data; arguments and errors are those of `read_images`.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> path = Path(tempfile.mkdtemp()) / "images.npy"
        >>> np.save(path, np.random.default_rng(0).integers(0, 256, (200, 8, 8), dtype=np.uint8))
        >>> from led_fast.data.images import open_images
        >>> open_images(path).sample(5).shape
        torch.Size([5, 1, 8, 8])
    """
    return ImageSource(str(path), read_images(path, strict, size))


def _split(collection: ImageCollection) -> dict[Split, ImageSet]:
    train, test = collection.train, collection.test
    count = len(train.images)
    held_out = int(count * _HELD_OUT_SHARE)
    order = _shuffled(count)
    if test is None:
        test, order = _select(train, order[:held_out]), order[held_out:]
    return {
        "train": _select(train, order[held_out:]),
        "validation": _select(train, order[:held_out]),
        "test": test,
    }


def _shuffled(count: int) -> Tensor:
    """The numbers below count, in an order that is always the same."""
    generator = torch.Generator("cpu").manual_seed(_SPLIT_SEED)
    return torch.randperm(count, generator=generator, device="cpu")


def _select(part: ImageSet, index: Tensor) -> ImageSet:
    """The images of an index, in their own order."""
    index = index.sort().values
    names = None if part.names is None else [part.names[i] for i in index.tolist()]
    return ImageSet(part.images[index], None if part.labels is None else part.labels[index], names)


def _fingerprint(collection: ImageCollection) -> str:
    digest = hashlib.sha256()
    for part in (collection.train, collection.test):
        if part is not None:
            digest.update(str(tuple(part.images.shape)).encode())
            digest.update(part.images.contiguous().numpy().data)
    return digest.hexdigest()
