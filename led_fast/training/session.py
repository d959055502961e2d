"""A whole run: from an empty folder, or from its last checkpoint, to a trained model."""

import time
from collections.abc import Callable
from dataclasses import replace

import torch
from rich.console import Console

from led_fast.data import DataSource
from led_fast.errors import InputError
from led_fast.evaluation import count_modes, quadrature_in_data_coordinates
from led_fast.ops import use_reference
from led_fast.training.checkpoint import load_state, save_state
from led_fast.training.config import TrainConfig
from led_fast.training.interrupt import StopSignal
from led_fast.training.model import in_data_coordinates, save_model
from led_fast.training.progress import ProgressDisplay
from led_fast.training.run import MetricsLog, RunDirectory
from led_fast.training.trainer import DivergenceError, Trainer

CHECKPOINT_EVERY = 50  # steps
_LOG_EVERY = 10
_KIND = "checkpoint"
_MONITOR_SAMPLES = 1000
_UNTIMED_STEPS, _TIMED_STEPS = 10, 40


class Interrupted(Exception):
    """A signal stopped the run; its checkpoint is complete.

    Attributes:
        signal: number of the signal.
        steps_done: where the run will go on.
    """

    def __init__(self, signal: int, steps_done: int) -> None:
        super().__init__(f"stopped after step {steps_done}")
        self.signal, self.steps_done = signal, steps_done


def train(
    run: RunDirectory,
    config: TrainConfig,
    source: DataSource,
    console: Console,
    after_step: Callable[[Trainer], None] | None = None,
) -> None:
    """Trains from the run's checkpoint, or from the start where it has none, and writes its model.

    Torch's global random state is left as it was found.

    Args:
        run: its folder.
        config: of the run.
        source: its data.
        console: where to show progress.
        after_step: looks on after every step, before a checkpoint of it is written. It must not touch the
            trainer, nor torch's global random numbers.

    Raises:
        InputError: the checkpoint is damaged or foreign.
        Interrupted: SIGINT or SIGTERM came; the step under way was finished and saved.
        DivergenceError: the last good checkpoint is kept.
    """
    with torch.random.fork_rng(devices=[]), use_reference(config.ops == "reference"):
        trainer, seconds = Trainer(config, source), 0.0
        if run.checkpoint.exists():
            state = load_state(run.checkpoint, _KIND)
            if TrainConfig.from_json(state["config"], str(run.checkpoint)) != config:
                raise InputError(f"{run.checkpoint}: is of a run with another config than {run.config.name}")
            try:
                trainer.load_state_dict(state["trainer"])
            except RuntimeError:
                raise InputError(
                    f"{run.checkpoint}: does not fit the networks that this version of led_fast builds from "
                    "its config"
                ) from None
            seconds = state["seconds"]
        seconds = _take_steps(trainer, seconds, run, console, after_step)
        model = in_data_coordinates(
            trainer.average_critic, trainer.average_generator, source.shift, source.scale
        )
        quadrature = quadrature_in_data_coordinates(model.critic, source.shift, source.scale)
        model.set_log_normalizer(quadrature.value)
        save_model(run, model, config, seconds)


def _take_steps(
    trainer: Trainer,
    seconds: float,
    run: RunDirectory,
    console: Console,
    after_step: Callable[[Trainer], None] | None,
) -> float:
    """Takes the steps that are left; returns the seconds of the whole run, `seconds` so far included."""
    config = trainer.config
    began = time.monotonic() - seconds
    title = f"{config.data}, {config.preset}, seed {config.seed}"
    with (
        MetricsLog(run.metrics, trainer.steps_done) as log,
        ProgressDisplay(title, trainer.steps_done, config.steps, console) as display,
        StopSignal() as stop,
    ):
        while trainer.steps_done < config.steps:
            try:
                metrics = trainer.step()
            except DivergenceError as error:
                raise DivergenceError(_advice(trainer, run, error)) from None
            if after_step is not None:
                after_step(trainer)
            done = trainer.steps_done
            last = done == config.steps or stop.received is not None
            if last or done % _LOG_EVERY == 0:
                metrics |= _monitor(trainer)
                log.append({"step": done, **metrics})
                display.update(done, metrics)
            if last or done % CHECKPOINT_EVERY == 0:
                state = {"config": config.to_json(), "seconds": time.monotonic() - began}
                save_state(run.checkpoint, _KIND, state | {"trainer": trainer.state_dict()})
            if stop.received is not None:
                raise Interrupted(stop.received, done)
    return time.monotonic() - began


def _monitor(trainer: Trainer) -> dict[str, float]:
    """Modes that the averaged generator reaches; draws nothing from the run's own random numbers."""
    source = trainer.source
    if source.mixture is None:
        return {}
    with torch.random.fork_rng(devices=[]):
        drawn = trainer.average_generator.sample(_MONITOR_SAMPLES)
    found = count_modes(source.shift + source.scale * drawn, source.mixture).modes
    return {"modes": found, "modes_total": len(source.mixture.centers)}


def _advice(trainer: Trainer, run: RunDirectory, error: DivergenceError) -> str:
    kept = (
        f"the last checkpoint in {run.path} is kept"
        if run.checkpoint.exists()
        else "there is no checkpoint yet"
    )
    return (
        f"training diverged at step {trainer.steps_done + 1}: {error}; {kept}; "
        "try another --seed in a new --out folder, and look for far outliers if the data are your own"
    )


def steps_in(minutes: float, config: TrainConfig, source: DataSource) -> int:
    """How many steps fit in some minutes, by the time that a few steps of a throw-away trainer take."""
    with torch.random.fork_rng(devices=[]), use_reference(config.ops == "reference"):
        trainer = Trainer(replace(config, steps=_UNTIMED_STEPS + _TIMED_STEPS), source)
        for _ in range(_UNTIMED_STEPS):
            trainer.step()
        began = time.perf_counter()
        for _ in range(_TIMED_STEPS):
            trainer.step()
        seconds = (time.perf_counter() - began) / _TIMED_STEPS
    return max(1, round(60 * minutes / seconds))
