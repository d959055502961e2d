"""MNIST's file format, plain or gzipped."""

import gzip
import math
import re
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor

from led_fast.data.images.collection import ImageCollection, ImageSet
from led_fast.errors import InputError

_FILE = re.compile(r"(train|t10k)-(images|labels)[-.]idx[13]-ubyte(\.gz)?")
_UNSIGNED_BYTES = 0x08


def find_idx(folder: Path) -> dict[str, Path] | None:
    """Finds MNIST-like files by their names, e.g. `train-images` for `train-images-idx3-ubyte.gz`.

    Looks into the folder itself, `raw/`, and torchvision's `<data set>/raw/`. None where there are none.

    Raises:
        InputError: several data sets, or no training images among the files.
    """
    places = [folder, folder / "raw", *sorted(folder.glob("*/raw"))]
    found = {place: files for place in places if (files := _idx_files(place))}
    if len(found) > 1:
        names = ", ".join(str(place.relative_to(folder)) for place in found)
        raise InputError(f"{folder}: holds several data sets ({names}): name one of these folders")
    for place, files in found.items():
        if "train-images" not in files:
            raise InputError(f"{place}: want train-images-idx3-ubyte (or .gz), got only {sorted(files)}")
        return files
    return None


def _idx_files(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if match := _FILE.fullmatch(path.name):
            files.setdefault(f"{match[1]}-{match[2]}", path)  # the plain file comes before the gzipped one
    return files


def read_idx_folder(files: dict[str, Path]) -> ImageCollection:
    """Reads what `find_idx` found; the `t10k` files are the test images."""

    def image_set(part: str) -> ImageSet:
        images = read_idx(files[f"{part}-images"], dims=3)
        labels = files.get(f"{part}-labels")
        return ImageSet(images[:, None], None if labels is None else read_idx(labels, dims=1).long())

    return ImageCollection(image_set("train"), image_set("t10k") if "t10k-images" in files else None)


def read_idx(path: Path, dims: int) -> Tensor:
    """Reads an idx file of unsigned bytes.

    Args:
        path: the file, gzipped where its name ends in `.gz`.
        dims: number of dimensions wanted: 3 for images, 1 for labels.

    Returns:
        uint8, of the shape that the file states.

    Raises:
        InputError: not such a file, truncated, longer than its shape, or empty.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    header = 4 * (1 + dims)
    if len(content) < header:
        raise InputError(f"{path}: want a header of {header} bytes, got a file of {len(content)}")
    magic, *shape = struct.unpack(f">{1 + dims}I", content[:header])
    wanted = _UNSIGNED_BYTES << 8 | dims
    if magic != wanted:
        raise InputError(f"{path}: want magic number {wanted} (bytes, {dims} dimensions), got {magic}")
    size = math.prod(shape)
    if len(content) - header != size:
        raise InputError(f"{path}: shape {shape} wants {size} bytes, got {len(content) - header}")
    if size == 0:
        raise InputError(f"{path}: holds nothing, its shape is {shape}")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=header).reshape(shape)
