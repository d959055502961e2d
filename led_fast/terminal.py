"""Where text for people goes: a terminal, which may be narrow, dumb or not UTF-8, a notebook, a pipe, a log file."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

_BETWEEN = 3  # columns of characters, at most, beside a column of a table


def console(stderr: bool = False, quiet: bool = False) -> Console:
    """A console on standard output or error; what is no terminal gets no control codes, whatever FORCE_COLOR says."""
    stream = sys.stderr if stderr else sys.stdout
    terminal = stream is not None and stream.isatty()
    return Console(stderr=stderr, quiet=quiet, force_terminal=None if terminal else False)


def is_live(console: Console) -> bool:
    """Whether what a console shows can change in place."""
    return console.is_terminal and not console.is_dumb_terminal


def say(console: Console, text: str) -> None:
    """Prints a line as it is, however long it is and whatever names it holds."""
    console.print(text, highlight=False, soft_wrap=True, markup=False)


def show(console: Console, table: Table) -> None:
    """Prints a table, however narrow the terminal, without cutting words, because a number that is cut is wrong."""
    for column in table.columns:
        words = " ".join(str(cell) for cell in (column.header, *column.cells)).split()
        column.min_width = max(map(cell_len, words), default=0)
    least = sum(column.min_width or 0 for column in table.columns) + _BETWEEN * (len(table.columns) + 1)
    if least > console.width:
        table.width = least
    console.print(table, crop=False)


@contextmanager
def any_text() -> Iterator[None]:
    """While it is open, what standard output and error cannot encode is written as escapes."""
    streams = [stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, TextIOWrapper)]
    before = [stream.errors for stream in streams]
    try:
        for stream in streams:
            stream.reconfigure(errors="backslashreplace")
        yield
    finally:
        for stream, errors in zip(streams, before, strict=True):
            stream.reconfigure(errors=errors)
