"""Files that may be gzipped, whatever their names say: what fetches them may unpack them, or pack them."""

import gzip
from pathlib import Path
from typing import IO, cast

_MAGIC = b"\x1f\x8b"


def is_gzipped(path: Path) -> bool:
    """Whether a file begins as gzip's do."""
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def open_unpacked(path: Path) -> IO[bytes]:
    """Opens a file for reading what it holds, unpacked."""
    return cast(IO[bytes], gzip.open(path, "rb") if is_gzipped(path) else path.open("rb"))
