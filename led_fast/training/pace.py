"""What a run takes, by a few steps of each stage of a throw-away trainer."""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from led_fast.kinds import find_kind
from led_fast.ops import use_reference
from led_fast.random_state import isolated
from led_fast.surroundings import usual
from led_fast.training.config import TrainConfig
from led_fast.training.task import Source
from led_fast.training.trainer import Trainer
from led_fast.training.world import World

_TRIAL_STEPS = 10_000  # of a run that is never finished
_TRIAL_SHARE = 0.05  # of what begins a stage
_UNTIMED_STEPS, _TIMED_STEPS = 5, 20
_TIMED_SECONDS = 20.0

Clock = Callable[[], float]


class Pace(NamedTuple):
    """Seconds of a run.

    Attributes:
        step: of a step, on the average of all stages.
        once: of what is done once a run.
    """

    step: float
    once: float

    def steps_in(self, minutes: float) -> int:
        """How many steps fit in some minutes.

        A stage may come to rest early, which cannot be foreseen: then the run is done somewhat earlier.
        """
        # What is done once depends on the steps too: a short run does less of it than the throw-away one.
        return max(1, round(max(60 * minutes - self.once, 30 * minutes) / self.step))


@usual()
def measure_pace(
    config: TrainConfig, source: Source, world: World | None = None, clock: Clock = time.perf_counter
) -> Pace:
    """Takes a few steps of each stage.

    What they compile is there for a run in the same process.

    Args:
        config: of the run.
        source: its data.
        world: the processes that train together.
        clock: in seconds; that of the wall, or `time.process_time`.
    """
    with isolated(find_kind(config.kind).device()), use_reference(config.ops == "reference"):
        trainer = Trainer(replace(config, steps=_TRIAL_STEPS), source, world)
        agree, stages, step, once = trainer.world.agree, config.recipe.stages, 0.0, 0.0
        for stage in stages:
            begin = partial(trainer.begin_stage, stage, _TRIAL_SHARE)
            once += agree(_seconds(begin, clock)) / _TRIAL_SHARE
            # One step on, because the first one would begin the stage in full.
            trainer.steps_done = trainer.first_step(stage.begin) + 1
            look = partial(trainer.selection.begin, stage.name)
            once += config.recipe.selection.checks * agree(_seconds(look, clock))
            untimed = _UNTIMED_STEPS if trainer.graphs is None else trainer.graphs.steps_before
            each = seconds_a_step(trainer.step, _TIMED_SECONDS / len(stages), agree, untimed, clock)
            step += (stage.end - stage.begin) * each
    return Pace(step, once)


def steps_in(
    minutes: float,
    config: TrainConfig,
    source: Source,
    world: World | None = None,
    clock: Clock = time.perf_counter,
) -> int:
    """How many steps of a run fit in some minutes of a clock; see `measure_pace` and `Pace.steps_in`."""
    return measure_pace(config, source, world, clock).steps_in(minutes)


def seconds_a_step(
    step: Callable[[], object],
    limit: float = _TIMED_SECONDS,
    agree: Callable[[float], float] = float,
    untimed: int = _UNTIMED_STEPS,
    clock: Clock = time.perf_counter,
) -> float:
    """What a training step takes, by a few of them, until a limit of seconds.

    Args:
        step: takes one.
        limit: in seconds, after which no more steps are timed.
        agree: makes one number of those of all processes.
        untimed: steps before those.
        clock: in seconds.
    """
    for _ in range(untimed):
        step()
    began, elapsed, timed = clock(), 0.0, 0
    while timed < _TIMED_STEPS and elapsed < limit:
        step()
        timed += 1
        elapsed = agree(clock() - began)
    return elapsed / timed


def _seconds(work: Callable[[], object], clock: Clock) -> float:
    began = clock()
    work()
    return clock() - began
