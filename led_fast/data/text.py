"""Columns as lines of text, a part of them at a time."""

import csv
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

import numpy as np

_AT_A_TIME = 65_536

Column = Sequence[Any] | np.ndarray


def write_csv(
    file: IO[str],
    columns: Mapping[str, Column],
    forms: Mapping[str, Callable[[Any], str]],
    separator: str = ",",
) -> None:
    """Writes columns of one length under their names.

    Args:
        file: open for text.
        columns: numbers or text, by name.
        forms: what makes text of the values, by name; `written` where there is none.
        separator: between fields.
    """
    writer = csv.writer(file, delimiter=separator, lineterminator="\n")
    writer.writerow(map(printable, columns))
    for start in range(0, max(map(len, columns.values()), default=0), _AT_A_TIME):
        parts = {name: column[start : start + _AT_A_TIME] for name, column in columns.items()}
        lists = {
            name: part.tolist() if isinstance(part, np.ndarray) else part for name, part in parts.items()
        }
        writer.writerows(
            zip(*(map(forms.get(name, written), values) for name, values in lists.items()), strict=True)
        )


def written(value: object) -> str:
    """A value as text."""
    return printable(str(value))


def printable(text: str) -> str:
    """Text in which bytes of file names that are not UTF-8 are escapes, such as `caf\\xe9.png`."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
