"""What a person sees while a run trains: a live display on a terminal, plain lines elsewhere."""

import math
import time
from contextlib import AbstractContextManager
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from led_fast.terminal import is_live, say
from led_fast.training.settings import Recipe, Stage

_PLAIN_LINES = 20  # over a whole run
_SHOWN = {
    "generator's NLL {generator_nll:.1f}": "generator_nll",
    "critic {critic_loss:.3f}": "critic_loss",
    "generator {generator_loss:.3f}": "generator_loss",
    "KL(q ‖ p) {kl_generator_model:.3f}": "kl_generator_model",
    "ESS/S {ess_fraction:.2f}": "ess_fraction",
    "log α {log_normalizer:.3f}": "log_normalizer",
    "modes {modes}/{modes_total}": "modes",
    "validation {validation:.3f}": "validation",
}


class ProgressDisplay(AbstractContextManager["ProgressDisplay"]):
    """Shows the step, the latest metrics and the time left of the stage, because each stage has a pace of its own.

    Args:
        title: what is being trained.
        start: steps already done when this process began.
        total: steps of the whole run.
        console: where to show it.
        recipe: of the run, for its stages.
    """

    def __init__(self, title: str, start: int, total: int, console: Console, recipe: Recipe) -> None:
        self._title, self._console, self._total, self._recipe = title, console, total, recipe
        self._next_line = start
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._bar.add_task(title)
        self._enter(recipe.stage(start / total), start)
        self._live = Live(console=console, refresh_per_second=4)
        self._show("starting …")

    def __enter__(self) -> "ProgressDisplay":
        """Starts the live display, where there is a terminal."""
        if is_live(self._console):
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the last state of the display on the screen."""
        if is_live(self._console):
            self._live.stop()

    def update(self, step: int, metrics: dict[str, float]) -> None:
        """Shows the state after a step."""
        stage = self._recipe.stage(step / self._total)
        if stage != self._stage:
            self._enter(stage, step)
        line = "  ".join(text for text, metric in _SHOWN.items() if metric in metrics).format(**metrics)
        self._bar.update(self._task, completed=step)
        self._show(line)
        if not is_live(self._console) and (step >= self._next_line or step == self._total):
            self._next_line = step + self._total // _PLAIN_LINES
            parts = (f"step {step}/{self._total}", line, self._time_left(step))
            say(self._console, "  ".join(filter(None, parts)))

    def _enter(self, stage: Stage, step: int) -> None:
        self._stage, self._end = stage, math.ceil(stage.end * self._total)
        self._timed_from, self._began = step, time.monotonic()
        part = f", {stage.name}" if len(self._recipe.stages) > 1 else ""
        self._bar.reset(self._task, total=self._end, completed=step, description=self._title + part)

    def _show(self, line: str) -> None:
        self._live.update(Group(self._bar, Text(f"  {line}", style="dim")))

    def _time_left(self, step: int) -> str:
        """By the pace since the last line, because a calibration may come to rest early."""
        part = f" of {self._stage.name}" if len(self._recipe.stages) > 1 else ""
        if step == self._timed_from and step < self._end:
            return f"{self._stage.name} begins"
        seconds = (time.monotonic() - self._began) / max(step - self._timed_from, 1) * (self._end - step)
        self._timed_from, self._began = step, time.monotonic()
        return f"{int(seconds) // 60}:{int(seconds) % 60:02d}{part} left"
