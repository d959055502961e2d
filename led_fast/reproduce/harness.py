"""Runs cells, several at a time, so that a stopped command loses little: what is finished stays."""

import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from led_fast.errors import InputError
from led_fast.reproduce.cell import Cell, Finished, finished, run_cell
from led_fast.training import Interrupted
from led_fast.training.interrupt import StopSignal

_LOOK_EVERY = 0.3  # seconds between two looks at whether a signal came
_BAD_INPUT = 2  # a process's exit code


class Stopped(Exception):
    """A signal stopped the cells; the same command goes on with what is not finished.

    Attributes:
        signal: number of the signal.
    """

    def __init__(self, signal: int, done: int, total: int) -> None:
        super().__init__(f"stopped with {done} of {total} parts done")
        self.signal = signal


def run_cells(cells: Sequence[Cell], out: Path, command: str, jobs: int, console: Console) -> list[Finished]:
    """Does the work of all cells that have no result yet, on one thread each.

    Args:
        cells: of different names.
        out: folder of the experiments.
        command: recorded in every result.
        jobs: how many cells at a time, each in a process of its own; 1 runs them in this process.
        console: where to show progress.

    Returns:
        The results, in the order of `cells`.

    Raises:
        InputError: `out` holds a cell of the same name with other settings; or a file is damaged or cannot be
            written.
        Stopped: SIGINT or SIGTERM came; training runs saved a checkpoint first.
    """
    pending = [cell for cell in cells if finished(cell, out) is None]
    with _progress(len(cells), len(cells) - len(pending), console) as tick:
        try:
            if jobs == 1:
                _run_here(pending, out, command, tick)
            else:
                _run_in_processes(pending, out, command, jobs, tick)
        except (Interrupted, KeyboardInterrupt) as stop:  # the latter from a cell that is no training
            done = sum(finished(cell, out) is not None for cell in cells)
            received = stop.signal if isinstance(stop, Interrupted) else signal.SIGINT
            raise Stopped(received, done, len(cells)) from None
    results = [finished(cell, out) for cell in cells]
    return [result for result in results if result is not None]


def _run_here(cells: Sequence[Cell], out: Path, command: str, tick: Callable[[str], None]) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for cell in cells:
            run_cell(cell, out, command)
            tick(cell.name)
    finally:
        torch.set_num_threads(threads)


def _run_in_processes(
    cells: Sequence[Cell], out: Path, command: str, jobs: int, tick: Callable[[str], None]
) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["led_fast.reproduce"])  # so that torch is imported once
    waiting = list(cells)
    running: dict[Any, tuple[Cell, Any]] = {}  # by the process's sentinel
    try:
        with StopSignal() as stop:
            while waiting or running:
                while waiting and len(running) < jobs:
                    cell = waiting.pop(0)
                    process = context.Process(target=_run_in_child, args=(cell, out, command))
                    process.start()
                    running[process.sentinel] = cell, process
                for sentinel in wait(list(running), timeout=_LOOK_EVERY):
                    cell, process = running.pop(sentinel)
                    process.join()
                    if process.exitcode and stop.received is None:
                        kind = InputError if process.exitcode == _BAD_INPUT else RuntimeError
                        raise kind(f"{cell.name} failed; its own message stands above")
                    tick(cell.name)
                if stop.received is not None:
                    raise Interrupted(stop.received, 0)
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.join()


def _run_in_child(cell: Cell, out: Path, command: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which then sends SIGTERM
    torch.set_num_threads(1)
    try:
        run_cell(cell, out, command)
    except Interrupted as stop:
        sys.exit(128 + stop.signal)
    except (InputError, OSError) as error:
        print(f"led-fast: {error}", file=sys.stderr)
        sys.exit(_BAD_INPUT)


@contextmanager
def _progress(total: int, done: int, console: Console) -> Iterator[Callable[[str], None]]:
    """A bar over the cells on a terminal, a line a cell elsewhere."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    task = bar.add_task("cells", total=total, completed=done)
    if done:
        console.print(f"{done} of {total} cells are done already")

    def tick(name: str) -> None:
        bar.advance(task)
        completed = int(bar.tasks[task].completed)
        console.print(f"{completed}/{total}  {name}", highlight=False)

    with bar:
        yield tick
