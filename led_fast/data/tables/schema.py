"""Which columns of a file are wanted, and what is said of values that cannot be used."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from led_fast.errors import InputError

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".npy")
MOST_CATEGORIES = 65_536  # of a column of labels; one with more, such as a number of the row, is not kept


@dataclass(frozen=True)
class Choice:
    """Which of a file's columns are read, by position.

    Attributes:
        modelled: the columns of the table, in its order.
        names: what the table calls them.
        labels: the ignored columns.
        notes: what was decided.
    """

    modelled: tuple[int, ...]
    names: tuple[str, ...]
    labels: tuple[int, ...]
    notes: tuple[str, ...]


def choose(
    path: Path, names: Sequence[str], header: bool, ignore: Sequence[str], columns: Sequence[str] | None
) -> Choice:
    """Finds the wanted columns among those of a file.

    Args:
        path: the file, for messages.
        names: its columns.
        header: whether the names are the file's own; if not, columns are also found by position.
        ignore: the columns that are labels.
        columns: the columns wanted; None wants all.

    Raises:
        InputError: a column that is not there, or none left.
    """
    for name in ignore:
        if name not in names:
            raise InputError(f"{path}: has no column {name!r} to ignore; its columns are {listed(names)}")
    labels = tuple(names.index(name) for name in dict.fromkeys(ignore))
    left = tuple(i for i in range(len(names)) if i not in labels)
    if columns is None:
        if not left:
            raise InputError(f"{path}: all columns are ignored; nothing is left to model")
        return Choice(left, tuple(names[i] for i in left), labels, ())
    wanted = tuple(columns)
    if not header and len(left) == len(wanted):
        return Choice(left, wanted, labels, ("no header: columns are taken in the order of training",))
    missing = [name for name in wanted if name not in names or names.index(name) in labels]
    if missing and not header:
        raise InputError(
            f"{path}: has no header and {len(left)} columns; want the {len(wanted)} columns {listed(wanted)}"
        )
    if missing:
        kind = "column" if len(missing) == 1 else "columns"
        raise InputError(f"{path}: lacks the {kind} {listed(missing)}; its columns are {listed(names)}")
    extra = [names[i] for i in left if names[i] not in wanted]
    notes = (f"passed over columns that the model does not know: {listed(extra)}",) if extra else ()
    return Choice(tuple(names.index(name) for name in wanted), wanted, labels, notes)


def made_up_names(columns: int) -> tuple[str, ...]:
    """x1, …, xD: the columns of a file that does not name them."""
    return tuple(f"x{i}" for i in range(1, columns + 1))


def unnamed(names: Sequence[str], why: str) -> str:
    """A note on made-up names."""
    if len(names) == 1:
        return f"{why}: the column is called {names[0]}"
    return f"{why}: the columns are called {names[0]} to {names[-1]}"


def not_kept(name: str) -> str:
    """A note on an ignored column that has too many values for labels."""
    return f"column {name} has more than {MOST_CATEGORIES} different values: ignored, and not kept as labels"


def listed(names: Sequence[str], most: int = 30) -> str:
    """Names in a row, the first of them where there are many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


class AdvisedError(InputError):
    """A value that training can do without.

    Attributes:
        said: what is wrong, without the advice.
    """

    def __init__(self, said: str, advice: str) -> None:
        super().__init__(f"{said}; {advice}")
        self.said = said


def no_number(path: Path, names: Sequence[str], row: int, value: str, kind: str = "") -> InputError:
    """A value that is no number, in the first of the columns that hold such values."""
    also = f"; other columns with such values: {listed(names[1:])}" if names[1:] else ""
    short = value if len(value) <= 60 else value[:60] + "…"
    said = f"column {names[0]!r}, row {row}: {short!r} is not a number{kind}{also}"
    return AdvisedError(f"{path}: {said}", f"leave out with {_ignored(names)}")


def all_missing(path: Path, names: Sequence[str]) -> InputError:
    """Columns without any value."""
    said = f"{path}: all values of column {' and '.join(names[:30])} are missing"
    return AdvisedError(said, f"leave out with {_ignored(names)}")


def _ignored(names: Sequence[str]) -> str:
    return " ".join(f"--ignore {shlex.quote(name)}" for name in names[:30])


def not_finite(path: Path | str, name: str, row: int, value: object) -> InputError:
    """A value that is infinite."""
    return InputError(f"{path}: column {name!r}, row {row}: {value} is not finite")


def rounded_integer(path: Path | str, name: str, row: int, text: object) -> InputError:
    """An integer that float64 cannot hold."""
    said = f"{path}: column {name!r}, row {row}: {text} has more digits than float64 holds"
    return AdvisedError(said, f"subtract an offset, or leave the column out with {_ignored([name])}")


def report_missing(path: Path, name: str, row: int, lacking: int, rows: int, drop: bool) -> list[str]:
    """The note on rows left out; raises InputError where they are not to be, or where none is left.

    Args:
        path: the file.
        name: the first column with a missing value.
        row: its first row, from 1.
        lacking: how many rows lack a value.
        rows: how many there are.
        drop: whether rows are to be left out.
    """
    if not drop:
        said = f"{path}: column {name!r}, row {row}: the value is missing, as in {lacking} of {rows} rows"
        raise AdvisedError(
            said, f"leave such rows out with --drop-missing, or the column with {_ignored([name])}"
        )
    if lacking == rows:
        raise InputError(f"{path}: every row has a missing value; nothing is left without them")
    return [f"left out {lacking} of {rows} rows with missing values"]
