"""The files in a folder of data: hidden ones are no data, links are followed, and loops of them cut."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from led_fast.errors import InputError

# What macOS, Synology and Windows put beside a user's files without the dot.
_SYSTEM = {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information"}
_NAMED = 3


@dataclass(frozen=True)
class Listing:
    """What lies in a folder.

    Attributes:
        folder: which.
        files: in it and in the folders in it, sorted, without hidden ones.
        passed_over: what else there is, one sentence each.
    """

    folder: Path
    files: tuple[Path, ...]
    passed_over: tuple[str, ...]

    def others(self, used: Iterable[Path]) -> tuple[str, ...]:
        """A note on the files that are not used, if there are any."""
        taken = set(used)
        return tuple(counted([p for p in self.files if p not in taken], "other file", "other files"))


def list_files(folder: Path) -> Listing:
    """Lists a folder and those in it, each once: what links lead to again is named as passed over.

    Raises:
        InputError: the folder cannot be read.
    """
    try:
        seen = {_identity(folder): folder}
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror})") from None
    files: list[Path] = []
    hidden: list[Path] = []
    no_files: list[Path] = []
    again: list[str] = []
    level = [folder]
    while level:  # by depth, so that a link at the top, such as train, comes before what it leads to
        below: list[os.DirEntry[str]] = []
        for place in level:
            try:
                entries = list(os.scandir(place))
            except OSError as error:
                raise InputError(f"{place}: cannot be read ({error.strerror})") from None
            for entry in entries:
                if entry.name.startswith(".") or entry.name in _SYSTEM:
                    hidden.append(Path(entry.path))
                elif _is(entry.is_dir):
                    below.append(entry)
                else:
                    (files if _is(entry.is_file) else no_files).append(Path(entry.path))
        level = []
        for entry in sorted(below, key=lambda entry: (entry.is_symlink(), entry.path)):
            path = Path(entry.path)
            if (first := seen.setdefault(_identity(path), path)) is path:
                level.append(path)
            else:
                again.append(f"passed over {path}: it is {first} again")
    passed_over = (
        *counted(hidden, "hidden file or folder", "hidden files and folders"),
        *counted(no_files, "link or device that is no file", "links and devices that are no files"),
        *again,
    )
    return Listing(folder, tuple(sorted(files)), passed_over)


def counted(paths: Sequence[Path], one: str, several: str) -> list[str]:
    """A note that says how many paths were passed over, and names the first of them; none where there are none."""
    if not paths:
        return []
    named = first_few([str(path) for path in sorted(paths)])
    return [f"passed over {len(paths)} {one if len(paths) == 1 else several}: {named}"]


def first_few(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _is(kind: object) -> bool:
    try:
        return bool(kind())  # type: ignore[operator]
    except OSError:  # a link that leads to itself
        return False
