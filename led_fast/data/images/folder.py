"""Any folder of pictures."""

import os
import threading
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from rich.progress import track
from torch import Tensor

from led_fast.data.images.collection import ImageCollection, ImageSet
from led_fast.data.images.listing import Listing, counted, first_few
from led_fast.errors import InputError, first_line
from led_fast.terminal import console

_SUFFIXES = {".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg"}
_SUFFIXES |= {".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
# The formats that are decoded, whatever a file's name says: for some others Pillow runs programs.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_GRAY = {"1", "L", "LA", "La"}
_COLOR = {"P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV"}
_SHOW_PROGRESS_FROM = 2000  # pictures: some seconds
_NAMED = 3  # pictures in a message
_AT_A_TIME = 512  # pictures that a stream decodes
_WORKERS = 8
_MOST_PIXELS = 1 << 27  # half a GiB in memory
_LARGE = 1 << 24  # pixels; such pictures are decoded one at a time
_one_large = threading.Lock()


class _Picture(NamedTuple):
    """A picture as (size, size) or (size, size, 3) uint8, and what is lost of it."""

    pixels: np.ndarray
    animated: bool
    transparent: bool

    @property
    def marks(self) -> tuple[str, ...]:
        """By which it is counted."""
        return (
            "taken",
            *(["animated"] if self.animated else []),
            *(["transparent"] if self.transparent else []),
        )


class _Found(NamedTuple):
    """The pictures in a folder, by the folders that hold those to learn from, and those to test with if they differ."""

    listing: Listing
    files: list[Path]
    paths: dict[Path, list[Path]]


def _find(listing: Listing) -> _Found:
    folder, files = listing.folder, [path for path in listing.files if path.suffix.lower() in _SUFFIXES]
    roots = [folder / "train", folder / "test"]
    if not all(root.is_dir() for root in roots):
        roots = [folder]
    paths = {root: [path for path in files if path.is_relative_to(root)] for root in roots}
    for root, found in paths.items():
        if not found:
            wanted = "want idx files, CIFAR's batches, or pictures"
            raise InputError(f"{root}: holds no images: {wanted}; {_instead(listing, root)}")
    return _Found(listing, files, paths)


def read_folder(listing: Listing, size: int, strict: bool = False) -> ImageCollection:
    """Reads every picture in a folder and the folders in it.

    Each picture is turned upright, composed on white where it is transparent, cropped to its central square and
    resized to size x size (Lanczos); of an animated one the first frame is taken. Where any picture has colour, all
    become RGB. Where the folder has sub-folders `train` and `test`, the test images are those in `test`, and pictures
    elsewhere are ignored. Folders one level further down are classes, numbered in alphabetical order, unless some
    picture lies in none.

    A file that cannot be decoded, or whose shorter side is below `size` (enlarging it would invent pixels),
    is skipped, and named in the result, as is all that is passed over.

    Raises:
        InputError: no picture can be used, or with `strict` any picture cannot.
    """
    found = _find(listing)
    decoded = [_decode_all(paths, size, root) for root, paths in found.paths.items()]
    skipped = tuple(problem for part in decoded for problem in part.values() if isinstance(problem, str))
    pictures = [{p: image for p, image in part.items() if isinstance(image, _Picture)} for part in decoded]
    if skipped and (strict or not all(pictures)):
        raise _of_no_use(skipped, found)
    color = any(image.pixels.ndim == 3 for part in pictures for image in part.values())
    sets = [
        ImageSet(
            _stack([image.pixels for image in part.values()], color), labels, [str(path) for path in part]
        )
        for part, labels in zip(
            pictures, _labels(list(found.paths), [list(part) for part in pictures]), strict=True
        )
    ]
    notes = _notes(
        found, Counter(mark for part in pictures for image in part.values() for mark in image.marks)
    )
    return ImageCollection(sets[0], sets[1] if len(sets) > 1 else None, skipped, notes)


class FolderStream:
    """The pictures in a folder, decoded some at a time, see `read_folder`.

    What a picture becomes does not depend on the others: `color` says whether gray ones become RGB.

    Attributes:
        skipped: so far.
    """

    def __init__(self, listing: Listing, size: int, color: bool) -> None:
        self._found, self._size, self._color = _find(listing), size, color
        self._marks: Counter[str] = Counter()
        self.skipped: list[str] = []

    @property
    def notes(self) -> tuple[str, ...]:
        """What was passed over, and done to the pictures, so far."""
        return _notes(self._found, self._marks)

    def parts(self) -> Iterator[tuple[str, list[str], Tensor]]:
        """("train" or "test", their files, (n, C, size, size) uint8).

        Raises:
            InputError: a picture in colour where gray ones are wanted, or no picture can be used.
        """
        for title, (root, paths) in zip(("train", "test"), self._found.paths.items(), strict=False):
            any_of_use = False
            for start in range(0, len(paths), _AT_A_TIME):
                used = {}
                for path, image in _decode_all(paths[start : start + _AT_A_TIME], self._size, root).items():
                    if isinstance(image, str):
                        self.skipped.append(image)
                        continue
                    if image.pixels.ndim == 3 and not self._color:
                        raise InputError(
                            f"{path}: want a gray picture, because the model's images are gray; got RGB"
                        )
                    used[str(path)] = image
                    self._marks.update(image.marks)
                if used:
                    any_of_use = True
                    yield title, list(used), _stack([image.pixels for image in used.values()], self._color)
            if not any_of_use:
                raise _of_no_use(self.skipped, self._found)


def _of_no_use(skipped: Sequence[str], found: _Found) -> InputError:
    more = f" (and {len(skipped) - _NAMED} more)" if len(skipped) > _NAMED else ""
    pictures = sum(map(len, found.paths.values()))
    return InputError(
        f"{len(skipped)} of {pictures} pictures are of no use: {'; '.join(skipped[:_NAMED])}{more}"
    )


def _instead(listing: Listing, root: Path) -> str:
    """What lies where pictures were wanted."""
    names = [str(path.relative_to(root)) for path in listing.files if path.is_relative_to(root)]
    packed = any(name.lower().endswith((".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")) for name in names)
    return f"got {first_few(names) or 'no files'}" + ("; unpack it first" if packed else "")


def _notes(found: _Found, marks: Counter[str]) -> tuple[str, ...]:
    """What was passed over, and how many of the `taken` pictures have which marks."""
    used = {path for paths in found.paths.values() for path in paths}
    others = sorted(set(found.listing.files) - set(found.files))
    notes = counted(others, "file that is no picture", "files that are no pictures")
    outside = [path for path in found.files if path not in used]
    notes += counted(outside, "picture outside of train and test", "pictures outside of train and test")
    done = {
        "animated": "have several frames: the first was taken",
        "transparent": "are transparent: they were composed on white",
    }
    notes += [
        f"{marks[mark]} of {marks['taken']} pictures {what}" for mark, what in done.items() if marks[mark]
    ]
    return tuple(notes)


def _decode_all(paths: list[Path], size: int, folder: Path) -> dict[Path, _Picture | str]:
    workers = min(_WORKERS, os.cpu_count() or 1)
    with (
        ThreadPoolExecutor(workers) as pool,
        warnings.catch_warnings(),
    ):  # decoders release the interpreter's lock
        warnings.simplefilter("ignore")  # Pillow's, which name no file
        results = track(
            pool.map(lambda path: _decode(path, size), paths),
            description=f"reading {folder.name}",
            total=len(paths),
            console=console(stderr=True),
            transient=True,
            disable=len(paths) < _SHOW_PROGRESS_FROM,
        )
        return dict(zip(paths, results, strict=True))


def _decode(path: Path, size: int) -> _Picture | str:
    """The picture, or what is wrong with it."""
    try:
        with Image.open(path, formats=_FORMATS) as picture:
            width, height = picture.size
            if min(width, height) < size:
                return f"{path}: want at least {size}x{size} pixels, got {width}x{height}"
            if width * height > _MOST_PIXELS:
                return f"{path}: want at most {_MOST_PIXELS} pixels, got {width}x{height}"
            if picture.mode not in _GRAY | _COLOR:
                return f"{path}: want 8 bits a channel, got a picture of mode {picture.mode}"
            animated = picture.format != "MPO" and getattr(picture, "is_animated", False)
            with _one_large if width * height > _LARGE else nullcontext():
                pixels, transparent = _square(picture, size)
                return _Picture(pixels, animated, transparent)
    except Exception as error:  # decoders raise whatever a broken file leads them to
        return f"{path}: not a readable picture ({first_line(error)})"


def _square(picture: Image.Image, size: int) -> tuple[np.ndarray, bool]:
    """(the central square of a picture, whether anything was transparent)."""
    mode = "L" if picture.mode in _GRAY else "RGB"
    ImageOps.exif_transpose(picture, in_place=True)
    plain, transparent = picture, False
    if picture.has_transparency_data:
        seen = picture.convert("RGBA")
        transparent = bool((np.asarray(seen)[..., 3] < 255).any())
        plain = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen) if transparent else picture
    plain = plain if plain.mode == mode else plain.convert(mode)
    return np.array(ImageOps.fit(plain, (size, size), Image.Resampling.LANCZOS)), transparent


def _stack(images: list[np.ndarray], color: bool) -> Tensor:
    stacked = np.empty((len(images), 3 if color else 1, *images[0].shape[:2]), dtype=np.uint8)
    for out, image in zip(stacked, images, strict=True):
        out[:] = image.transpose(2, 0, 1) if image.ndim == 3 else image
    return torch.from_numpy(stacked)


def _labels(roots: list[Path], paths: list[list[Path]]) -> list[Tensor | None]:
    """Class of each picture, for each root; None where there are no classes."""
    parts = [[path.relative_to(root).parts for path in part] for root, part in zip(roots, paths, strict=True)]
    if any(len(names) == 1 for part in parts for names in part):
        return [None] * len(roots)
    number = {name: i for i, name in enumerate(sorted({names[0] for part in parts for names in part}))}
    return [torch.tensor([number[names[0]] for names in part], device="cpu") for part in parts]
