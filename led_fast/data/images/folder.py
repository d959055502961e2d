"""Any folder of pictures."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from rich.console import Console
from rich.progress import track
from torch import Tensor

from led_fast.data.images.collection import ImageCollection, ImageSet
from led_fast.errors import InputError

_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
_GRAY = {"1", "L", "LA", "La"}
_COLOR = {"P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV"}
_SHOW_PROGRESS_FROM = 2000  # pictures: some seconds
_NAMED = 3  # pictures in a message


def read_folder(folder: Path, size: int, strict: bool = False) -> ImageCollection:
    """Reads every picture in a folder and the folders in it.

    Each picture is turned upright, cropped to its central square and resized to size x size (Lanczos). Where
    any picture has colour, all become RGB. Where the folder has sub-folders `train` and `test`, the test
    images are those in `test`, and pictures elsewhere are ignored. Folders one level further down are
    classes, numbered in alphabetical order, unless some picture lies in none.

    A file that cannot be decoded, or whose shorter side is below `size` (enlarging it would invent pixels),
    is skipped, and named in the result.

    Raises:
        InputError: no picture can be used, or with `strict` any picture cannot.
    """
    roots = [folder / "train", folder / "test"]
    if not all(root.is_dir() for root in roots):
        roots = [folder]
    paths = [sorted(p for p in root.rglob("*") if _is_picture(p)) for root in roots]
    for root, found in zip(roots, paths, strict=True):
        if not found:
            raise InputError(f"{root}: holds no images: want idx files, CIFAR-10's batches, or pictures")
    decoded = [_decode_all(found, size, root) for root, found in zip(roots, paths, strict=True)]
    skipped = tuple(problem for part in decoded for problem in part.values() if isinstance(problem, str))
    pictures = [{p: image for p, image in part.items() if isinstance(image, np.ndarray)} for part in decoded]
    if skipped and (strict or not all(pictures)):
        more = f" (and {len(skipped) - _NAMED} more)" if len(skipped) > _NAMED else ""
        raise InputError(
            f"{len(skipped)} of {sum(map(len, paths))} pictures are of no use: "
            f"{'; '.join(skipped[:_NAMED])}{more}"
        )
    color = any(image.ndim == 3 for part in pictures for image in part.values())
    sets = [
        ImageSet(_stack(list(part.values()), color), labels, [str(path) for path in part])
        for part, labels in zip(pictures, _labels(roots, [list(part) for part in pictures]), strict=True)
    ]
    return ImageCollection(sets[0], sets[1] if len(sets) > 1 else None, skipped)


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and path.is_file()


def _decode_all(paths: list[Path], size: int, folder: Path) -> dict[Path, np.ndarray | str]:
    with ThreadPoolExecutor() as pool:  # decoders release the interpreter's lock
        results = track(
            pool.map(lambda path: _decode(path, size), paths),
            description=f"reading {folder.name}",
            total=len(paths),
            console=Console(stderr=True),
            transient=True,
            disable=len(paths) < _SHOW_PROGRESS_FROM,
        )
        return dict(zip(paths, results, strict=True))


def _decode(path: Path, size: int) -> np.ndarray | str:
    """The picture as (size, size) or (size, size, 3), or what is wrong with it."""
    try:
        with Image.open(path) as picture:
            width, height = picture.size
            if min(width, height) < size:
                return f"{path}: want at least {size}x{size} pixels, got {width}x{height}"
            if picture.mode not in _GRAY | _COLOR:
                return f"{path}: want 8 bits a channel, got a picture of mode {picture.mode}"
            plain = ImageOps.exif_transpose(picture).convert("L" if picture.mode in _GRAY else "RGB")
            return np.array(ImageOps.fit(plain, (size, size), Image.Resampling.LANCZOS))
    except Exception as error:  # decoders raise whatever a broken file leads them to
        return f"{path}: not a readable picture ({error})"


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
