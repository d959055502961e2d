"""What a run leaves behind on its way: metrics, a live display, previews of its samples."""

import importlib.util
from contextlib import ExitStack
from typing import Any

from rich.console import Console

from led_fast.random_state import isolated
from led_fast.training.progress import ProgressDisplay
from led_fast.training.run import MetricsLog, RunDirectory
from led_fast.training.trainer import Trainer

_LOG_EVERY = 10  # steps
_PREVIEW_EVERY = 250


class RunRecorder(ExitStack):
    """Records the steps of a trainer, without drawing from the run's own random numbers.

    Metrics go to `metrics.jsonl` always, and to the folder `tensorboard` where that package is installed.

    Args:
        run: where to write.
        trainer: whose steps.
        console: where to show progress.
    """

    def __init__(self, run: RunDirectory, trainer: Trainer, console: Console) -> None:
        super().__init__()
        self._run, self._trainer, self._console = run, trainer, console

    def __enter__(self) -> "RunRecorder":
        """Opens the logs and the display."""
        config, done = self._trainer.config, self._trainer.steps_done
        title = f"{config.data}, {config.preset}, seed {config.seed}"
        self._log = self.enter_context(MetricsLog(self._run.metrics, done))
        self._tensorboard = self._open_tensorboard(done)
        self._display = self.enter_context(
            ProgressDisplay(title, done, config.steps, self._console, config.recipe)
        )
        return self

    def record(self, metrics: dict[str, float], last: bool) -> None:
        """Writes the metrics of the step just taken, if it is a tenth one or the last; now and then a preview."""
        trainer, step = self._trainer, self._trainer.steps_done
        if last or step % _PREVIEW_EVERY == 0:
            with isolated(trainer.task.device):
                trainer.task.preview(trainer.average_generator, self._run.preview(step))
        if not last and step % _LOG_EVERY:
            return
        with isolated(trainer.task.device):
            metrics = metrics | trainer.task.monitor(trainer.average_generator)
        self._log.append({"step": step, **metrics})
        for name, value in metrics.items() if self._tensorboard else ():
            self._tensorboard.add_scalar(name, value, step)
        self._display.update(step, metrics)

    def _open_tensorboard(self, done: int) -> Any:
        if importlib.util.find_spec("tensorboard") is None:
            return None
        from torch.utils.tensorboard import SummaryWriter

        # purge_step hides what a killed run wrote after its last checkpoint.
        return self.enter_context(SummaryWriter(str(self._run.path / "tensorboard"), purge_step=done + 1))
