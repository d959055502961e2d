"""Files that a crash, or a full disk, cannot leave half written; JSON with errors that name the file."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from led_fast.errors import InputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, whose file takes the place of `path` once it is whole.

    A crash, or a full disk, at any moment leaves the previous content in place.

    Raises:
        OSError: it cannot be written; names `path`.
    """
    temporary = path.with_name(f".tmp.{path.name}")
    try:
        try:
            yield temporary
            _flush(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _flush(path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Names a path in an error of the system that names none, as those of writes do."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error = OSError(error.errno, error.strerror or str(error), str(path))
        raise error from None


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file; see `replacing`."""
    with replacing(path) as file:
        file.write_bytes(content)


def _flush(path: Path) -> None:
    """Brings a file, or the names in a folder, to the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes indented JSON, atomically."""
    write_atomically(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object; InputError names the file where it is missing or broken."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: want a JSON object, got {type(content).__name__}")
    return content
