"""CIFAR-10 and CIFAR-100, as pickled batches, binary batches, or batches in PNG files."""

import io
import json
import pickle
import pickletools
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from led_fast.data.images.collection import ImageCollection, ImageSet
from led_fast.data.images.listing import Listing
from led_fast.errors import InputError, first_line

_SIZE = 32
_PIXELS = 3 * _SIZE**2


class _Form(NamedTuple):
    """How a data set lies in its folder: its files by part, less the suffix, and what else tells it from others."""

    train: tuple[str, ...]
    test: tuple[str, ...]
    suffix: str
    labels: str  # their key in a pickle
    label_bytes: int  # in front of an image in a binary batch, the last of which is the class
    sign: str = ""  # a further file that must be there

    @property
    def needed(self) -> set[str]:
        return {f"{self.train[0]}{self.suffix}", *({self.sign} if self.sign else ())}


_TEN = tuple(f"data_batch_{i}" for i in range(1, 6)), ("test_batch",)
_HUNDRED = ("train",), ("test",)
_FORMS = (
    _Form(*_TEN, "", "labels", 1),
    _Form(*_TEN, ".bin", "labels", 1),
    _Form(*_TEN, ".png", "labels", 1),
    _Form(*_HUNDRED, "", "fine_labels", 2, "meta"),
    _Form(*_HUNDRED, ".bin", "fine_labels", 2, "fine_label_names.txt"),
)


class CifarFiles(NamedTuple):
    """Where batches lie, and in which form; notes on what else lies there."""

    place: Path
    form: _Form
    notes: tuple[str, ...]


def find_cifar(listing: Listing) -> CifarFiles | None:
    """Finds batches by their names, wherever they lie; None where there are none.

    Raises:
        InputError: several data sets.
    """
    there: dict[Path, set[str]] = {}
    for path in listing.files:
        there.setdefault(path.parent, set()).add(path.name)
    found = [(place, form) for place, names in there.items() for form in _FORMS if form.needed <= names]
    if len({place for place, _ in found}) > 1:
        names = ", ".join(str(place.relative_to(listing.folder)) for place, _ in found)
        raise InputError(f"{listing.folder}: holds several data sets ({names}): name one of these folders")
    for place, form in found:
        own = {place / f"{name}{form.suffix}" for name in (*form.train, *form.test)}
        return CifarFiles(place, form, listing.others(own))
    return None


def read_cifar(found: CifarFiles) -> ImageCollection:
    """Reads the batches that `find_cifar` found, and the test batch.

    A PNG holds one image a row: 1024 RGB pixels, the image's rows one after the other. Its labels are lists in
    `train_labels.json` and `test_labels.json` beside it (or `…_lables.json`, the spelling of a package that
    ships this form).

    Raises:
        InputError: a batch is missing or cannot be read.
    """
    place, form, notes = found
    train, test = (_read_part(place, form, part) for part in ("train", "test"))
    return ImageCollection(train, test, notes=notes)


def stream_cifar(found: CifarFiles) -> Iterator[tuple[str, Tensor]]:
    """The images of the batches, one batch at a time: ("train" or "test", (n, 3, 32, 32) uint8)."""
    for title in ("train", "test"):
        for path in _batches(found.place, found.form, title):
            yield title, _read_batch(path, found.form)[0]


def _read_part(place: Path, form: _Form, part: str) -> ImageSet:
    images, labels = zip(*(_read_batch(path, form) for path in _batches(place, form, part)), strict=True)
    classes = _read_labels(place, part) if form.suffix == ".png" else torch.cat(labels)
    return ImageSet(torch.cat(images), classes)


def _batches(place: Path, form: _Form, part: str) -> list[Path]:
    names = form.train if part == "train" else form.test
    paths = [place / f"{name}{form.suffix}" for name in names]
    for path in paths:
        if not path.is_file():
            wanted = ", ".join(f"{name}{form.suffix}" for name in (*form.train, *form.test))
            raise InputError(f"{path}: no such file; want {wanted}")
    return paths


def _read_batch(path: Path, form: _Form) -> tuple[Tensor, Tensor]:
    """(images, classes), where a PNG file holds no classes."""
    if form.suffix == ".png":
        return _read_png(path), torch.empty(0, dtype=torch.int64, device="cpu")
    return (_read_binary if form.suffix else _read_pickle)(path, form)


def _are_classes(labels: object) -> bool:
    return isinstance(labels, list) and all(type(n) is int and 0 <= n < 2**31 for n in labels)


def _as_images(rows: np.ndarray) -> Tensor:
    return torch.from_numpy(rows.copy()).reshape(-1, 3, _SIZE, _SIZE)


# ---- pickles


def _read_pickle(path: Path, form: _Form) -> tuple[Tensor, Tensor]:
    try:
        content = path.read_bytes()
        deque(pickletools.genops(content), maxlen=0)  # nothing is longer than what there is of it
        batch = _Batch(io.BytesIO(content), encoding="bytes").load()
        rows, labels = batch[b"data"], batch[form.labels.encode()]
        rows = rows.array() if isinstance(rows, _Array) else rows
    except Exception as error:  # unpickling a foreign file can raise anything
        raise InputError(f"{path}: not a batch of CIFAR ({first_line(error)})") from None
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.shape[1] != _PIXELS:
        got = f"uint8 {rows.shape}" if isinstance(rows, np.ndarray) else type(rows).__name__
        raise InputError(f"{path}: want uint8 data (images, {_PIXELS}), got {got}")
    if not _are_classes(labels):
        raise InputError(f"{path}: want a list of classes as {form.labels}")
    if len(labels) != len(rows):
        raise InputError(f"{path}: {len(rows)} images but {len(labels)} labels")
    if not labels:
        raise InputError(f"{path}: holds no images")
    return _as_images(rows), torch.tensor(labels, dtype=torch.int64, device="cpu")


class _Array:
    """A pickled array of bytes, which NumPy's own code, that trusts a pickle, never touches."""

    def __init__(self, *_: object) -> None:
        self._state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._state = state

    def array(self) -> np.ndarray:
        _, shape, dtype, fortran, content = self._state
        if not isinstance(dtype, _Bytes):
            raise ValueError("want an array of bytes")
        return np.frombuffer(content, dtype=np.uint8).reshape(shape, order="F" if fortran else "C")


class _Bytes:
    """The pickled dtype of bytes; other ones are refused."""

    def __init__(self, name: object, *_: object) -> None:
        if name not in ("u1", b"u1"):
            raise pickle.UnpicklingError(f"want uint8 data, got {name!r}")

    def __setstate__(self, _: object) -> None:
        pass


def _array(content: Any, dtype: object, shape: Any, order: str, *_: object) -> _Array:
    """What `numpy._core.numeric._frombuffer` makes of pickles of protocol 5."""
    made = _Array()
    made.__setstate__((1, shape, dtype, order == "F", content))
    return made


class _Batch(pickle._Unpickler):
    """Unpickles containers, numbers, strings and arrays of bytes; a pickle that calls anything else is refused.

    In Python, because the C version's memory grows with the numbers that a damaged file holds.
    """

    def find_class(self, module: str, name: str) -> Any:
        core = module.replace("numpy._core", "numpy.core")
        known = {
            ("numpy.core.multiarray", "_reconstruct"): _Array,
            ("numpy.core.numeric", "_frombuffer"): _array,
            ("numpy", "ndarray"): _Array,
            ("numpy", "dtype"): _Bytes,
            ("_codecs", "encode"): _encoded,
        }
        if (core, name) in known:
            return known[core, name]
        self._refuse(module, name)

    def _refuse(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it would call {module}.{name}")


def _encoded(text: str, encoding: str) -> bytes:
    """Bytes as Python 3 pickles them by protocols of Python 2."""
    if encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError(f"it would encode by {encoding!r}")
    return text.encode("latin-1")


# ---- other forms


def _read_binary(path: Path, form: _Form) -> tuple[Tensor, Tensor]:
    row = form.label_bytes + _PIXELS
    try:
        content = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    if len(content) == 0 or len(content) % row:
        raise InputError(f"{path}: want rows of {row} bytes, got {len(content)} bytes")
    rows = content.reshape(-1, row)
    return _as_images(rows[:, form.label_bytes :]), torch.from_numpy(
        rows[:, form.label_bytes - 1].astype(np.int64)
    )


def _read_png(path: Path) -> Tensor:
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            if picture.width != _SIZE**2:
                raise InputError(
                    f"{path}: want one image of {_SIZE**2} pixels a row, got rows of {picture.width}"
                )
            rows = np.array(picture.convert("RGB"))
    except InputError:
        raise
    except Exception as error:  # decoders raise whatever a broken file leads them to
        raise InputError(f"{path}: not a readable picture ({first_line(error)})") from None
    return torch.from_numpy(rows).reshape(-1, _SIZE, _SIZE, 3).permute(0, 3, 1, 2).contiguous()


def _read_labels(folder: Path, part: str) -> Tensor | None:
    for path in (folder / f"{part}_labels.json", folder / f"{part}_lables.json"):
        if path.is_file():
            try:
                labels = json.loads(path.read_bytes())
            except (ValueError, RecursionError, OSError) as error:
                raise InputError(f"{path}: not a list of labels ({first_line(error)})") from None
            if not _are_classes(labels):
                raise InputError(f"{path}: not a list of labels, one number an image")
            return torch.tensor(labels, dtype=torch.int64, device="cpu")
    return None
