"""The folder of one run: which file holds what, and the rule that nothing is overwritten."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from led_fast.errors import InputError
from led_fast.files import write_atomically


@dataclass(frozen=True)
class RunDirectory:
    """Paths of a run's files.

    `config.json` what was asked for; `checkpoint.safetensors` the whole state of training; `metrics.jsonl`
    one line every few steps; `samples-….png` previews of images; `model.safetensors` the result; `report.json`
    and `density.png` its evaluation (of tables, `columns.png` too). Hidden files are locks, and what was being written
    when a process was killed.

    Example:
        >>> from pathlib import Path
        >>> from led_fast.training import RunDirectory
        >>> RunDirectory(Path("runs/ring")).model.name
        'model.safetensors'
    """

    path: Path

    @property
    def config(self) -> Path:
        """What was asked for, as JSON."""
        return self.path / "config.json"

    @property
    def checkpoint(self) -> Path:
        """The state of training, enough to resume bit for bit."""
        return self.path / "checkpoint.safetensors"

    @property
    def metrics(self) -> Path:
        """Losses and diagnostics, one JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def model(self) -> Path:
        """The trained density model."""
        return self.path / "model.safetensors"

    @property
    def report(self) -> Path:
        """The evaluation, as JSON."""
        return self.path / "report.json"

    @property
    def figure(self) -> Path:
        """A picture of the evaluation."""
        return self.path / "density.png"

    def preview(self, step: int) -> Path:
        """Samples after so many steps."""
        return self.path / f"samples-{step:06d}.png"

    @classmethod
    def create(cls, path: Path) -> "RunDirectory":
        """Makes an empty folder for a new run; InputError where it cannot be made or is not empty.

        Hidden files do not count, because a process that is killed may leave them before a run has begun.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            occupied = any(not file.name.startswith(".") for file in path.iterdir())
        except OSError as error:
            raise InputError(f"--out {path}: cannot be used as a folder ({error.strerror})") from None
        if occupied:
            raise InputError(f"--out {path}: is not empty; choose a new folder, or --resume the run in it")
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> "RunDirectory":
        """Opens the folder of an existing run; InputError where it is none."""
        run = cls(path)
        if not run.config.is_file():
            raise InputError(f"{path}: is not a run of led-fast (it has no {run.config.name})")
        return run

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes from writing into the folder; the same thread may lock it again.

        The operating system lifts the lock when this process ends, however it does. Where a file system has no locks,
        there is none.

        Raises:
            InputError: another process, or another thread, has locked it.
        """
        lock = FileLock(self.path / ".lock", is_singleton=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise InputError(f"{self.path}: another process is at work on the run in it") from None
        except NotImplementedError:
            pass
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def undone_at_an_error(self) -> Iterator[None]:
        """Empties the folder of a new run where an error comes so early that nothing is lost: before a tenth step."""
        try:
            yield
        except BaseException:
            if not self.checkpoint.exists() and not (self.metrics.exists() and read_metrics(self.metrics)):
                for file in self.path.iterdir():
                    shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)
                self.path.rmdir()
            raise


class MetricsLog:
    """Appends rows to a `.jsonl` file."""

    def __init__(self, path: Path, last_step: int) -> None:
        """Opens the log, dropping what a killed run wrote after its last checkpoint.

        Args:
            path: the file; need not exist.
            last_step: rows of later steps, and a half-written last row, are dropped.
        """
        kept = [row for row in read_metrics(path) if row["step"] <= last_step] if path.exists() else []
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in kept).encode())
        self._file = path.open("ab", buffering=0)

    def append(self, row: dict[str, Any]) -> None:
        """Writes one row, which names its `step`."""
        self._file.write((json.dumps(row) + "\n").encode())

    def __enter__(self) -> "MetricsLog":
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the file."""
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`, without a half-written last one; InputError names a line that is damaged."""
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        try:
            row = json.loads(line) if line.endswith(b"\n") else None
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: line {number} is not valid JSON ({error})") from None
        if line.endswith(b"\n"):
            if not (isinstance(row, dict) and isinstance(row.get("step"), int)):
                raise InputError(f"{path}: line {number}: want a JSON object with a step")
            rows.append(row)
    return rows
