"""Images from NumPy's .npy and .npz files."""

import io
import math
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from led_fast.data.images.collection import ImageCollection, ImageSet
from led_fast.data.stored import StoredArray, open_npy
from led_fast.errors import InputError, first_line

# What Keras, MedMNIST and np.savez call them.
_TRAIN = ("x_train", "train_images", "images", "arr_0")
_TEST = ("x_test", "test_images")
_TRAIN_LABELS = ("y_train", "train_labels", "labels")
_TEST_LABELS = ("y_test", "test_labels")
_PART = 1 << 20  # bytes that are read at a time


def read_arrays(path: Path) -> ImageCollection:
    """Reads images from an array file.

    Args:
        path: a `.npy` array, or a `.npz` file with images under `x_train`, `train_images`, `images` or
            `arr_0`, its own test images under `x_test` or `test_images`, and labels under `y_train`,
            `train_labels` or `labels` and `y_test` or `test_labels`. Images are uint8, of shape (N, H, W),
            (N, H, W, C) or (N, C, H, W), C is 1 or 3.

    Raises:
        InputError: a file that cannot be read, or whose arrays are of another type or shape.
    """
    if path.suffix.lower() == ".npy":
        with open_npy(path) as stored:
            _check_form(stored.dtype, stored.shape, str(path))
            return ImageCollection(ImageSet(_channels_first(stored.whole())))
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return _read_npz(arrays, path)
    except InputError:
        raise
    except Exception as error:  # NumPy and zipfile raise whatever a damaged file leads them to
        raise InputError(f"{path}: not a readable array file ({first_line(error)})") from None


def stream_arrays(path: Path) -> Iterator[tuple[str, Tensor]]:
    """The images of an array file a part at a time, see `read_arrays`: ("train" or "test", (n, C, H, W) uint8)."""
    if path.suffix.lower() == ".npy":
        with open_npy(path) as stored:
            yield from (("train", part) for part in _image_parts(stored, str(path)))
        return
    try:
        with zipfile.ZipFile(path) as archive:
            yield from _npz_parts(archive, path)
    except InputError:
        raise
    except Exception as error:  # NumPy and zipfile raise whatever a damaged file leads them to
        raise InputError(f"{path}: not a readable array file ({first_line(error)})") from None


def _npz_parts(archive: zipfile.ZipFile, path: Path) -> Iterator[tuple[str, Tensor]]:
    sizes = {info.filename.removesuffix(".npy"): info.file_size for info in archive.infolist()}
    for title, keys in (("train", _TRAIN), ("test", _TEST)):
        key = next((key for key in keys if key in sizes), None)
        if key is None and title == "train":
            raise _lacks_images(path, sizes)
        if key is None:
            continue
        with archive.open(f"{key}.npy") as file:
            stored = StoredArray(file, sizes[key], f"{path}: {key}")
            if stored.fortran:  # there is no going to and fro in a packed file
                with archive.open(f"{key}.npy") as again:
                    stored = StoredArray(io.BytesIO(again.read()), sizes[key], f"{path}: {key}")
            yield from ((title, part) for part in _image_parts(stored, f"{path}: {key}"))


def _image_parts(stored: StoredArray, where: str) -> Iterator[Tensor]:
    _check_form(stored.dtype, stored.shape, where)
    return map(_channels_first, stored.parts(max(1, _PART // math.prod(stored.shape[1:]))))


def _lacks_images(path: Path, names: Mapping[str, object]) -> InputError:
    return InputError(f"{path}: want an array called {' or '.join(_TRAIN)}, got {sorted(names)}")


def _read_npz(arrays: Mapping[str, np.ndarray], path: Path) -> ImageCollection:
    def image_set(image_keys: tuple[str, ...], label_keys: tuple[str, ...]) -> ImageSet | None:
        key = next((key for key in image_keys if key in arrays), None)
        if key is None:
            return None
        label_key = next((key for key in label_keys if key in arrays), None)
        labels = None if label_key is None else _as_labels(arrays[label_key], f"{path}: {label_key}")
        return ImageSet(_as_images(arrays[key], f"{path}: {key}"), labels)

    train = image_set(_TRAIN, _TRAIN_LABELS)
    if train is None:
        raise _lacks_images(path, arrays)
    return ImageCollection(train, image_set(_TEST, _TEST_LABELS))


def _as_images(array: np.ndarray, where: str) -> Tensor:
    if not isinstance(array, np.ndarray):
        raise InputError(f"{where}: want uint8 images, levels 0 to 255, got no array")
    _check_form(array.dtype, array.shape, where)
    return _channels_first(array)


def _check_form(dtype: np.dtype, shape: tuple[int, ...], where: str) -> None:
    if dtype != np.uint8:
        raise InputError(f"{where}: want uint8 images, levels 0 to 255, got {dtype}")
    if len(shape) != 3 and not (len(shape) == 4 and (shape[-1] in (1, 3) or shape[1] in (1, 3))):
        wanted = "(N, H, W), (N, H, W, C) or (N, C, H, W) with C = 1 or 3"
        raise InputError(f"{where}: want shape {wanted}, got {shape}")
    if 0 in shape:
        raise InputError(f"{where}: holds no pixels, its shape is {shape}")


def _channels_first(array: np.ndarray) -> Tensor:
    """Images of a form that was checked as (N, C, H, W)."""
    if array.ndim == 3:
        array = array[:, None]
    elif array.shape[-1] in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(array))


def _as_labels(array: np.ndarray, where: str) -> Tensor:
    if not isinstance(array, np.ndarray) or not np.issubdtype(array.dtype, np.integer):
        got = getattr(array, "dtype", "no array")
        raise InputError(f"{where}: want integer labels, got {got}")
    if array.ndim == 0 or array.size != len(array):
        raise InputError(f"{where}: want one label an image, got shape {array.shape}")
    return torch.from_numpy(array.astype(np.int64).reshape(-1))
