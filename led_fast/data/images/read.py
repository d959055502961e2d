"""Images from any place that is recognised."""

from dataclasses import replace
from pathlib import Path

from torch import Tensor
from torch.nn.functional import pad

from led_fast.data.images.arrays import read_arrays
from led_fast.data.images.cifar import CifarFiles, find_cifar, read_cifar
from led_fast.data.images.collection import ImageCollection, ImageSet
from led_fast.data.images.folder import read_folder
from led_fast.data.images.idx import IdxFiles, find_idx, read_idx_folder
from led_fast.data.images.listing import Listing, list_files
from led_fast.errors import InputError

DEFAULT_SIZE = 64


def read_images(path: str | Path, strict: bool = False, size: int = DEFAULT_SIZE) -> ImageCollection:
    """Reads images, whatever form they have.

    Args:
        path: a folder with the idx files of one data set (MNIST, Fashion-MNIST, EMNIST's `letters`, …; `.gz` or not),
            with CIFAR-10's or CIFAR-100's batches (pickles, binary or PNG files), both also in folders in it, or with
            pictures; or a `.npy` or `.npz` file. 28x28 images are padded with zeros to 32x32. Hidden files are no data.
        strict: stop at the first picture that cannot be used, instead of skipping it.
        size: side of the pictures of a folder after cropping and resizing; other forms keep their size.

    Raises:
        InputError: nothing there, nothing recognised, or a file that is not what it should be. The message
            names the file, what was wanted, and what came.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> path = Path(tempfile.mkdtemp()) / "images.npy"
        >>> np.save(path, np.random.default_rng(0).integers(0, 256, (200, 8, 8), dtype=np.uint8))
        >>> from led_fast.data.images import read_images
        >>> read_images(path).train.images.shape
        torch.Size([200, 1, 8, 8])
    """
    path = Path(path)
    collection = _read(path, strict, size)
    parts = {"training": collection.train, "test": collection.test}
    for name, part in parts.items():
        if part is not None and part.labels is not None and len(part.labels) != len(part.images):
            raise InputError(f"{path}: {len(part.images)} {name} images but {len(part.labels)} labels")
    train, test = collection.train, collection.test
    if test is not None and test.images.shape[1:] != train.images.shape[1:]:
        shapes = f"{tuple(train.images.shape[1:])} and {tuple(test.images.shape[1:])}"
        raise InputError(f"{path}: training and test images differ in shape: {shapes}")
    return replace(collection, train=_padded(train), test=None if test is None else _padded(test))


def _read(path: Path, strict: bool, size: int) -> ImageCollection:
    found, passed_over = recognise(path)
    if isinstance(found, Path):
        return read_arrays(found)
    if isinstance(found, IdxFiles):
        collection = read_idx_folder(found)
    elif isinstance(found, CifarFiles):
        collection = read_cifar(found)
    else:
        collection = read_folder(found, size, strict)
    return replace(collection, notes=(*passed_over, *collection.notes))


def recognise(path: Path) -> tuple[Path | IdxFiles | CifarFiles | Listing, tuple[str, ...]]:
    """(an array file, a data set's files, or the files in a folder; what else lies there).

    Raises:
        InputError: nothing there, or nothing that is known.
    """
    if path.suffix.lower() in (".npy", ".npz") and path.is_file():
        return path, ()
    if not path.is_dir():
        got = "another kind of file" if path.exists() else "nothing"
        raise InputError(f"{path}: want a folder of images or a .npy or .npz file, got {got}")
    listing = list_files(path)
    return find_idx(listing) or find_cifar(listing) or listing, listing.passed_over


def pad_28(images: Tensor) -> Tensor:
    """Pads images of 28x28 with zeros to 32x32; others stay as they are."""
    return pad(images, (2, 2, 2, 2)) if images.shape[-2:] == (28, 28) else images


def _padded(part: ImageSet) -> ImageSet:
    return replace(part, images=pad_28(part.images))
