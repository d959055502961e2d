"""CIFAR-10, as pickled batches (its own form) or as batches in PNG files."""

import json
import pickle
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from led_fast.data.images.collection import ImageCollection, ImageSet
from led_fast.errors import InputError

_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
_SIZE = 32


def find_cifar(folder: Path) -> Path | None:
    """The folder that holds the first batch: this one, or torchvision's `cifar-10-batches-py` in it."""
    for place in (folder, folder / "cifar-10-batches-py"):
        if any((place / f"{_BATCHES[0]}{suffix}").is_file() for suffix in ("", ".png")):
            return place
    return None


def read_cifar(folder: Path) -> ImageCollection:
    """Reads the five batches `data_batch_1` to `_5` and `test_batch`, with or without suffix `.png`.

    A PNG holds one image a row: 1024 RGB pixels, the image's rows one after the other. Its labels are lists in
    `train_labels.json` and `test_labels.json` beside it (or `…_lables.json`, the spelling of a package that
    ships this form).

    Raises:
        InputError: a batch is missing or cannot be read.
    """
    pickled = (folder / _BATCHES[0]).is_file()
    parts = {"train": _BATCHES, "test": ("test_batch",)}
    train, test = (_read_part(folder, part, names, pickled) for part, names in parts.items())
    return ImageCollection(train, test)


def _read_part(folder: Path, part: str, names: tuple[str, ...], pickled: bool) -> ImageSet:
    paths = [folder / (name if pickled else f"{name}.png") for name in names]
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path}: no such file; CIFAR-10 wants five training batches and test_batch")
    if pickled:
        images, labels = zip(*map(_read_pickle, paths), strict=True)
        return ImageSet(torch.cat(images), torch.cat(labels))
    return ImageSet(torch.cat([_read_png(path) for path in paths]), _read_labels(folder, part))


def _read_pickle(path: Path) -> tuple[Tensor, Tensor]:
    try:
        with path.open("rb") as file:
            batch = _ArraysOnly(file, encoding="bytes").load()
        rows = np.asarray(batch[b"data"])
        labels = torch.tensor(batch[b"labels"], dtype=torch.int64, device="cpu")
    except Exception as error:  # unpickling a foreign file can raise anything
        raise InputError(f"{path}: not a batch of CIFAR-10 ({error})") from None
    if rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != 3 * _SIZE**2:
        raise InputError(f"{path}: want uint8 data (images, 3072), got {rows.dtype} {rows.shape}")
    if labels.shape != rows.shape[:1]:
        raise InputError(f"{path}: {len(rows)} images but {labels.numel()} labels")
    return torch.from_numpy(rows.copy()).reshape(-1, 3, _SIZE, _SIZE), labels


class _ArraysOnly(pickle.Unpickler):
    """Unpickles containers, numbers, strings and NumPy arrays; a pickle that calls anything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return np.empty(0).__reduce__()[0]
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        self._refuse(module, name)

    def _refuse(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it would call {module}.{name}")


def _read_png(path: Path) -> Tensor:
    try:
        with Image.open(path) as picture:
            rows = np.array(picture.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path}: not a readable picture ({error})") from None
    if rows.shape[1] != _SIZE**2:
        raise InputError(f"{path}: want one image of {_SIZE**2} pixels a row, got rows of {rows.shape[1]}")
    return torch.from_numpy(rows).reshape(-1, _SIZE, _SIZE, 3).permute(0, 3, 1, 2).contiguous()


def _read_labels(folder: Path, part: str) -> Tensor | None:
    for path in (folder / f"{part}_labels.json", folder / f"{part}_lables.json"):
        if path.is_file():
            try:
                labels = torch.tensor(json.loads(path.read_text()), dtype=torch.int64, device="cpu")
            except (ValueError, TypeError) as error:
                raise InputError(f"{path}: not a list of labels ({error})") from None
            if labels.dim() != 1:
                raise InputError(f"{path}: want one label an image, got shape {tuple(labels.shape)}")
            return labels
    return None
