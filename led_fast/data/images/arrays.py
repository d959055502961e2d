"""Images from NumPy's .npy and .npz files."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from led_fast.data.images.collection import ImageCollection, ImageSet
from led_fast.data.mapped import map_array
from led_fast.errors import InputError, first_line

# What Keras, MedMNIST and np.savez call them.
_TRAIN = ("x_train", "train_images", "images", "arr_0")
_TEST = ("x_test", "test_images")
_TRAIN_LABELS = ("y_train", "train_labels", "labels")
_TEST_LABELS = ("y_test", "test_labels")


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
        return ImageCollection(ImageSet(_as_images(map_array(path), str(path))))
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return _read_npz(arrays, path)
    except InputError:
        raise
    except Exception as error:  # NumPy and zipfile raise whatever a damaged file leads them to
        raise InputError(f"{path}: not a readable array file ({first_line(error)})") from None


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
        raise InputError(f"{path}: want an array called {' or '.join(_TRAIN)}, got {sorted(arrays)}")
    return ImageCollection(train, image_set(_TEST, _TEST_LABELS))


def _as_images(array: np.ndarray, where: str) -> Tensor:
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8:
        got = getattr(array, "dtype", "no array")
        raise InputError(f"{where}: want uint8 images, levels 0 to 255, got {got}")
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[-1] in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    elif array.ndim != 4 or array.shape[1] not in (1, 3):
        wanted = "(N, H, W), (N, H, W, C) or (N, C, H, W) with C = 1 or 3"
        raise InputError(f"{where}: want shape {wanted}, got {array.shape}")
    if array.size == 0:
        raise InputError(f"{where}: holds no pixels, its shape is {array.shape}")
    return torch.from_numpy(np.array(array, order="C"))  # a copy, because a mapped file may change


def _as_labels(array: np.ndarray, where: str) -> Tensor:
    if not isinstance(array, np.ndarray) or not np.issubdtype(array.dtype, np.integer):
        got = getattr(array, "dtype", "no array")
        raise InputError(f"{where}: want integer labels, got {got}")
    if array.ndim == 0 or array.size != len(array):
        raise InputError(f"{where}: want one label an image, got shape {array.shape}")
    return torch.from_numpy(array.astype(np.int64).reshape(-1))
