"""The file format of MNIST and its relatives, plain or gzipped."""

import math
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import torch
from torch import Tensor

from led_fast.data.gzipped import open_unpacked
from led_fast.data.images.collection import ImageCollection, ImageSet
from led_fast.data.images.listing import Listing
from led_fast.errors import InputError

_FILE = re.compile(r"(?:([\w-]+?)-)?(train|t10k|test)-(images|labels)[-.]idx[13]-ubyte(\.gz)?", re.IGNORECASE)
_UNSIGNED_BYTES = 0x08
_BLOCK = 1 << 20


class IdxFiles(NamedTuple):
    """One data set's files by what they hold, e.g. `train-images`; whether its images lie on their side; notes."""

    files: dict[str, Path]
    on_their_side: bool
    notes: tuple[str, ...]


def find_idx(listing: Listing) -> IdxFiles | None:
    """Finds MNIST-like files by their names, e.g. `train-images` for `train-images-idx3-ubyte.gz`; None without any.

    They may lie anywhere, each also in a folder of its own name. What comes before `train` is the data set's name, as
    in `emnist-letters-train-images-idx3-ubyte`; its `test` files are what others call `t10k`.

    Raises:
        InputError: several data sets, or no training images among the files.
    """
    sets: dict[tuple[Path, str], dict[str, list[Path]]] = {}
    for path in listing.files:
        if match := _FILE.fullmatch(path.name):
            name, part, what = (match[i].lower() if match[i] else "" for i in (1, 2, 3))
            place = path.parent.parent if _in_a_folder_of_its_name(path) else path.parent
            key = f"{'train' if part == 'train' else 't10k'}-{what}"
            sets.setdefault((place, name), {}).setdefault(key, []).append(path)
    if len(sets) > 1:
        names = ", ".join(str(place.relative_to(listing.folder) / name) for place, name in sets)
        raise InputError(
            f"{listing.folder}: holds several data sets ({names}): name the folder of one, or make one for it"
        )
    for (place, name), found in sets.items():
        if "train-images" not in found:
            raise InputError(f"{place}: want train-images-idx3-ubyte (or .gz), got only {sorted(found)}")
        # Files beside each other come before those in folders of their names, plain ones before gzipped ones.
        files = {
            key: min(paths, key=lambda path: (_in_a_folder_of_its_name(path), path.suffix == ".gz", path))
            for key, paths in found.items()
        }
        return IdxFiles(files, name.startswith("emnist"), listing.others(files.values()))
    return None


def _in_a_folder_of_its_name(path: Path) -> bool:
    return _FILE.fullmatch(path.parent.name) is not None


def read_idx_folder(found: IdxFiles) -> ImageCollection:
    """Reads what `find_idx` found; the `t10k` files are the test images. EMNIST's images are turned upright."""

    def image_set(part: str) -> ImageSet:
        images = _upright(read_idx(found.files[f"{part}-images"], dims=3), found)
        labels = found.files.get(f"{part}-labels")
        return ImageSet(images[:, None], None if labels is None else read_idx(labels, dims=1).long())

    test = image_set("t10k") if "t10k-images" in found.files else None
    return ImageCollection(image_set("train"), test, notes=found.notes)


def stream_idx_folder(found: IdxFiles) -> Iterator[tuple[str, Tensor]]:
    """The images that `find_idx` found, some at a time: ("train" or "test", (n, 1, H, W) uint8)."""
    for title, key in (("train", "train-images"), ("test", "t10k-images")):
        if key in found.files:
            for part in stream_idx(found.files[key], dims=3):
                yield title, _upright(part, found)[:, None]


def _upright(images: Tensor, found: IdxFiles) -> Tensor:
    return images.transpose(1, 2).contiguous() if found.on_their_side else images


def read_idx(path: Path, dims: int) -> Tensor:
    """Reads an idx file of unsigned bytes.

    Args:
        path: the file, gzipped or not, whatever its name says.
        dims: number of dimensions wanted: 3 for images, 1 for labels.

    Returns:
        uint8, of the shape that the file states.

    Raises:
        InputError: not such a file, truncated, longer than its shape, or empty.
    """
    return torch.cat(list(stream_idx(path, dims)))


def stream_idx(path: Path, dims: int) -> Iterator[Tensor]:
    """The items of an idx file in order, some at a time; see `read_idx`."""
    try:
        with open_unpacked(path) as file:
            shape = _read_shape(file, path, dims)
            size, item, read = math.prod(shape), math.prod(shape[1:]), 0
            if size == 0:
                raise InputError(f"{path}: holds nothing, its shape is {shape}")
            part = max(1, _BLOCK // item) * item
            while content := _read_up_to(file, min(part, size - read)):
                read += len(content)
                if len(content) % item:
                    break
                yield torch.frombuffer(content, dtype=torch.uint8).reshape(-1, *shape[1:])
            beyond = len(file.read(_BLOCK))
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    if read + beyond != size:
        more = " or more" if beyond else ""
        raise InputError(f"{path}: shape {shape} wants {size} bytes, got {read + beyond}{more}")


def _read_shape(file: IO[bytes], path: Path, dims: int) -> list[int]:
    header = 4 * (1 + dims)
    start = file.read(header)
    if len(start) < header:
        raise InputError(f"{path}: want a header of {header} bytes, got a file of {len(start)}")
    magic, *shape = struct.unpack(f">{1 + dims}I", start)
    wanted = _UNSIGNED_BYTES << 8 | dims
    if magic != wanted:
        raise InputError(f"{path}: want magic number {wanted} (bytes, {dims} dimensions), got {magic}")
    return list(shape)


def _read_up_to(file: IO[bytes], size: int) -> bytearray:
    """So many bytes, or what there is of them: memory grows with a file, not with what its header says."""
    content = bytearray()
    while len(content) < size and (block := file.read(min(_BLOCK, size - len(content)))):
        content += block
    return content
