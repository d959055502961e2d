"""Where text for people goes: a terminal, which may be narrow, dumb or not UTF-8, a notebook, a pipe, a log file."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper

from rich.console import Console
from rich.table import Table

_WIDEST = 10_000  # columns


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
    least = console.measure(table, options=console.options.update_width(_WIDEST)).minimum
    if least > console.width:
        table.width = least
    for column in table.columns:
        column.overflow = "fold"
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
