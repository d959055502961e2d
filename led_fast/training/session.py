"""A whole run: from an empty folder, or from its last checkpoint, to a trained model."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.console import Console
from torch import Tensor

from led_fast.errors import InputError
from led_fast.files import naming
from led_fast.kinds import find_kind
from led_fast.ops import use_reference
from led_fast.random_state import isolated
from led_fast.surroundings import usual
from led_fast.terminal import say
from led_fast.training.checkpoint import load_state, save_state
from led_fast.training.circumstances import Circumstances, circumstances, differences
from led_fast.training.config import TrainConfig
from led_fast.training.descent import DivergenceError
from led_fast.training.interrupt import StopSignal
from led_fast.training.model import TrainedModel, write_model
from led_fast.training.progress import ProgressDisplay
from led_fast.training.recorder import RunRecorder
from led_fast.training.run import RunDirectory
from led_fast.training.task import Source
from led_fast.training.trainer import Trainer
from led_fast.training.world import World

CHECKPOINT_EVERY = 50  # steps
_KIND = "checkpoint"


class Interrupted(Exception):
    """A signal stopped the run; its checkpoint is complete.

    Attributes:
        signal: number of the signal.
        steps_done: where the run will go on.
    """

    def __init__(self, signal: int, steps_done: int) -> None:
        super().__init__(f"stopped after step {steps_done}")
        self.signal, self.steps_done = signal, steps_done


@usual()
def train(
    run: RunDirectory,
    config: TrainConfig,
    source: Source,
    console: Console,
    after_step: Callable[[Trainer], None] | None = None,
    world: World | None = None,
) -> None:
    """Trains from the run's checkpoint, or from the start where it has none, and writes its model.

    Torch's global random state is left as it was found. Signals are caught in the main thread alone.

    Args:
        run: its folder, which no other process may write to meanwhile.
        config: of the run.
        source: its data.
        console: where to show progress.
        after_step: looks on after every step, before a checkpoint of it is written. It must not touch the
            trainer, nor torch's global random numbers.
        world: the processes that train together, all of which call this; the first of them writes.

    Raises:
        InputError: the checkpoint is damaged or foreign, or another process is at work in the folder.
        Interrupted: SIGINT or SIGTERM came; the step under way was finished and saved.
        DivergenceError: the last good checkpoint is kept.
        PeerLostError: another process of the world has died.
    """
    tell = partial(say, console)
    writes = world is None or world.rank == 0
    with (
        run.locked() if writes else nullcontext(),
        isolated(find_kind(config.kind).device()),
        use_reference(config.ops == "reference"),
    ):
        trainer, seconds = Trainer(config, source, world, tell), 0.0
        made_with = trainer.world.gather_objects(circumstances())
        if run.checkpoint.exists():
            seconds = _resume(trainer, run, made_with, tell)
        seconds = _take_steps(trainer, seconds, run, made_with, console, after_step)
        if writes:
            if config.recipe.has_density:
                tell("estimating log α, which takes minutes where many samples are wanted")
            model = trainer.task.model(*trainer.finished_networks())
            write_model(run.model, TrainedModel(model, config, seconds))


@usual()
def fit(config: TrainConfig, source: Source, console: Console) -> TrainedModel:
    """Trains without leaving anything on disk; returns the model.

    Torch's global random state is left as it was found.

    Raises:
        DivergenceError: a loss or a gradient was not finite.

    Example:
        >>> from rich.console import Console
        >>> from led_fast.data import open_source
        >>> from led_fast.training import TrainConfig, fit
        >>> source = open_source("ring")
        >>> trained = fit(TrainConfig.of(source, steps=4), source, Console(quiet=True))
        >>> trained.model.sample(5).shape
        torch.Size([5, 2])
    """
    began = time.monotonic()
    with isolated(find_kind(config.kind).device()), use_reference(config.ops == "reference"):
        trainer = Trainer(config, source)
        with ProgressDisplay(source.name, 0, config.steps, console, config.recipe) as display:
            while trainer.steps_done < config.steps:
                display.update(trainer.steps_done + 1, trainer.step())
        model = trainer.task.model(*trainer.finished_networks())
    return TrainedModel(model.eval(), config, time.monotonic() - began)


def _resume(
    trainer: Trainer, run: RunDirectory, made_with: list[Circumstances], tell: Callable[[str], None]
) -> float:
    """Loads the run's checkpoint; returns the seconds that it took so far.

    The run may have become longer, and other circumstances are said: either changes what comes of it.
    """
    path, state = run.checkpoint, load_state(run.checkpoint, _KIND)
    saved = TrainConfig.from_json(state["config"], str(path))
    config, longer = trainer.config, trainer.config.steps > saved.steps
    if longer:
        saved = replace(saved, steps=config.steps, minutes=config.minutes)
    if replace(saved, cuda_graph=config.cuda_graph) != config:
        raise InputError(f"{path}: is of a run with another config than {run.config.name}")
    with _fitting(path):
        began = _placement(state["trainer"]["random"])
    now = _placement(trainer.state_dict()["random"])
    if began != now:
        raise InputError(f"{path}: was begun by {began}; by {now} it cannot go on bit for bit")
    with _fitting(path):
        if changes := differences(state.get("made_with"), made_with):
            tell(f"{path}: {changes}; so it goes on to weights that differ by rounding, and what comes of it")
        trainer.load_state_dict(state["trainer"], state["config"]["steps"])
    if longer:
        tell(f"{trainer.steps_done} steps are done; the schedules go on as in a run of {config.steps}")
    return state["seconds"]


@contextmanager
def _fitting(path: Path) -> Iterator[None]:
    """InputError where a state is of other parts, or other shapes."""
    try:
        yield
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError):
        raise InputError(
            f"{path}: does not fit the networks that this version of led_fast builds from its config"
        ) from None


def _placement(random: list[dict[str, Tensor]]) -> str:
    """How many processes drew these random numbers, and where."""
    return f"{len(random)} process{'es' * (len(random) > 1)} on {'GPUs' if len(random[0]) > 1 else 'CPUs'}"


def _take_steps(
    trainer: Trainer,
    seconds: float,
    run: RunDirectory,
    made_with: list[Circumstances],
    console: Console,
    after_step: Callable[[Trainer], None] | None,
) -> float:
    """Takes the steps that are left; returns the seconds of the whole run, `seconds` so far included."""
    config, world = trainer.config, trainer.world
    began = time.monotonic() - seconds
    writes = world.rank == 0
    with (
        naming(run.path),
        RunRecorder(run, trainer, console) if writes else nullcontext() as recorder,
        StopSignal() as stop,
    ):
        while trainer.steps_done < config.steps:
            try:
                metrics = trainer.step()
            except DivergenceError as error:
                what = f"training diverged at step {trainer.steps_done + 1}: {error.what}"
                raise DivergenceError(what, _advice(run)) from None
            if after_step is not None:
                after_step(trainer)
            received = int(world.agree(stop.received or 0))
            last = trainer.steps_done == config.steps or received > 0
            if recorder is not None:
                recorder.record(metrics, last)
            if last or trainer.steps_done % CHECKPOINT_EVERY == 0:
                state = {"config": config.to_json(), "seconds": time.monotonic() - began}
                state |= {"made_with": made_with, "trainer": trainer.state_dict()}
                if recorder is not None:
                    save_state(run.checkpoint, _KIND, state)
            if received:
                raise Interrupted(received, trainer.steps_done)
    return time.monotonic() - began


def _advice(run: RunDirectory) -> str:
    kept = (
        f"the last checkpoint in {run.path} is kept"
        if run.checkpoint.exists()
        else "there is no checkpoint yet"
    )
    return f"{kept}; try another --seed in a new --out folder, and look for far outliers if the data are your own"
