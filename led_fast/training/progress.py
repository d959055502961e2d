"""What a person sees while a run trains: a live display on a terminal, plain lines elsewhere."""

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

_PLAIN_LINES = 20  # over a whole run
_SHOWN = {
    "generator's NLL {generator_nll:.1f}": "generator_nll",
    "critic {critic_loss:.3f}": "critic_loss",
    "generator {generator_loss:.3f}": "generator_loss",
    "KL(q ‖ p) {kl_generator_model:.3f}": "kl_generator_model",
    "ESS/S {ess_fraction:.2f}": "ess_fraction",
    "log α {log_normalizer:.3f}": "log_normalizer",
    "modes {modes}/{modes_total}": "modes",
}


class ProgressDisplay(AbstractContextManager["ProgressDisplay"]):
    """Shows the step, the latest metrics and the time left.

    Args:
        title: what is being trained.
        start: steps already done when this process began.
        total: steps of the whole run.
        console: where to show it.
        warm_up: steps of a first stage, of another pace; the time left is then that of the stage.
    """

    def __init__(self, title: str, start: int, total: int, console: Console, warm_up: int = 0) -> None:
        self._console, self._start, self._total = console, start, total
        self._warm_up = warm_up if start < warm_up else 0
        self._began = time.monotonic()
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
        self._task = self._bar.add_task(title, total=self._warm_up or total, completed=start)
        self._live = Live(console=console, refresh_per_second=4)
        self._show("starting …")

    def __enter__(self) -> "ProgressDisplay":
        """Starts the live display, where there is a terminal."""
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the last state of the display on the screen."""
        if self._console.is_terminal:
            self._live.stop()

    def update(self, step: int, metrics: dict[str, float]) -> None:
        """Shows the state after a step."""
        if self._warm_up and step >= self._warm_up:
            self._start, self._began, self._warm_up = step, time.monotonic(), 0
            self._bar.reset(self._task, total=self._total, completed=step)
        line = "  ".join(text for text, metric in _SHOWN.items() if metric in metrics).format(**metrics)
        self._bar.update(self._task, completed=step)
        self._show(line)
        if not self._console.is_terminal and (step >= self._next_line or step == self._total):
            self._next_line = step + self._total // _PLAIN_LINES
            text = f"step {step}/{self._total}  {line}  {self._time_left(step)}"
            self._console.print(text, highlight=False, soft_wrap=True)

    def _show(self, line: str) -> None:
        self._live.update(Group(self._bar, Text(f"  {line}", style="dim")))

    def _time_left(self, step: int) -> str:
        end = self._warm_up or self._total
        if step == self._start and step < end:
            return "left unknown: a new stage"
        seconds = (time.monotonic() - self._began) / max(step - self._start, 1) * (end - step)
        stage = " of the warm-up" if self._warm_up else ""
        return f"left {int(seconds) // 60}:{int(seconds) % 60:02d}{stage}"
