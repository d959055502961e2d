"""One training step of critic and generator, of any task and objective, and the state that it changes.

On a GPU the host waits once a step, at its end, when it reads the metrics: all that they decide is decided on the
device until then. So the same step can be recorded as a CUDA graph.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam

from led_fast.density import in_micro_batches
from led_fast.flows import OneWayFlow, ScoredSample
from led_fast.gpu import is_gpu
from led_fast.kinds import find_kind
from led_fast.random_state import random_state, set_random_state, set_seed
from led_fast.training.compiled import as_written, compile_networks, compiling
from led_fast.training.config import TrainConfig
from led_fast.training.descent import RunningAverages, adam, descend, rate_shares, set_learning_rate
from led_fast.training.graph import StepGraphs
from led_fast.training.objective import (
    CalibrationObjective,
    Critic,
    Loss,
    Objective,
    TiltObjective,
    objective_of,
)
from led_fast.training.precision import use_precision
from led_fast.training.readings import PackedReadings, Readings
from led_fast.training.schedule import cosine_decay
from led_fast.training.selection import BestAverages
from led_fast.training.settings import CALIBRATION, Stage
from led_fast.training.task import Source
from led_fast.training.world import World

_START_SAMPLES = 64
_STATEFUL = (
    "critic",
    "generator",
    "balance",
    "critic_optimizer",
    "generator_optimizer",
    "average_critic",
    "average_generator",
)


class Trainer:
    """The whole state of a run.

    All randomness is that of torch's global generators, which the constructor seeds and `state_dict` includes.

    Args:
        config: of the run.
        source: its data.
        world: the processes that take part.
        say: tells the user what is not as asked for.

    Raises:
        ValueError: the recipe calibrates a critic that tilts no generator, or its base is "current" where that cannot
            be (see `led_fast.training.objective.TiltObjective`).

    Example:
        >>> from led_fast.data import open_source
        >>> from led_fast.training import TrainConfig, Trainer
        >>> source = open_source("ring")
        >>> trainer = Trainer(TrainConfig.of(source, steps=4), source)
        >>> metrics = trainer.step()
        >>> trainer.steps_done
        1
    """

    def __init__(
        self,
        config: TrainConfig,
        source: Source,
        world: World | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        recipe, kind = config.recipe, find_kind(config.kind)
        device = kind.device()
        set_seed(config.seed, device)
        self.config, self.recipe, self.source, self.world = config, recipe, source, world or World()
        self.task = kind.task(config, source, self.world)
        if recipe.calibrate_from_in_use < 1 and not self.task.tilts:
            raise ValueError(
                "Trainer: critic must tilt a generator where calibration.begin < 1, got another one"
            )
        self.critic, self.generator, self.balance = self.task.critic, self.task.generator, self.task.balance
        # Once, because walking through modules takes as long as some of a small network's layers.
        self._weights = {
            "critic": list(self.critic.parameters()),
            "generator": list(self.generator.parameters()),
        }
        self.objective: Objective = objective_of(recipe)(self.task, recipe, self.world)
        self._function = self.objective.view(self.critic)
        self.calibration = CalibrationObjective(self.task, recipe, self.world)
        critics = [self.critic] if self.balance is None else [self.critic, self.balance]
        optimizer = recipe.optimizer
        self.critic_optimizer = adam(
            (parameter for network in critics for parameter in network.parameters()),
            optimizer.critic_learning_rate,
            optimizer.critic_betas or optimizer.betas,
            optimizer.weight_decay,
        )
        self.generator_optimizer = adam(
            self.generator.parameters(),
            optimizer.generator_learning_rate,
            optimizer.betas,
            optimizer.weight_decay,
            rate_shares(self.generator, optimizer.full_rate_inputs),
        )
        if self.world.size > 1:
            self.generator.sample(_START_SAMPLES)  # starts normalisation layers, alike everywhere
            seeds = torch.randint(2**62, (self.world.size,), device="cpu")
            set_seed(int(seeds[self.world.rank]), device)
        self.average_critic = copy.deepcopy(self.critic).eval()
        self.average_generator = copy.deepcopy(self.generator).eval()
        self._averages = RunningAverages(
            (self.average_critic, self.critic), (self.average_generator, self.generator)
        )
        # Not the averages, which make the model.
        use_precision(config.precision, self.critic, self.balance)
        self._compiled = config.compile == "on"
        if self._compiled:
            compile_networks(self.critic, self.balance, self.generator)
        self.steps_done = 0
        self.graphs = self._new_graphs(say)
        self.selection = BestAverages(
            recipe.selection, self.task.validate, self.average_critic, self.average_generator
        )
        self.begin_stage(self._stage(0))
        self.selection.begin(self._stage(0).name)

    def step(self) -> dict[str, float]:
        """One critic step and its generator steps.

        Returns:
            Metrics of the step, of the joint batch of all processes.

        Raises:
            DivergenceError: a loss or a gradient is not finite.
        """
        stage = self._stage(self.steps_done)
        if self.steps_done and stage != self._stage(self.steps_done - 1):
            self._change_stage(stage)
        objective = self._objective_in_use()
        with compiling(self._compiled):
            metrics = self._take(objective) if objective is not None else {}
        self._update_averages()
        self.steps_done += 1
        if objective is not None:
            metrics |= self.selection.after_step(stage.name, *self._position(stage))
        return metrics

    def finished_networks(self) -> tuple[nn.Module, OneWayFlow]:
        """The averaged critic and generator of which the model is made, once all steps are done."""
        self.selection.restore()
        last = self._stage(self.config.steps - 1).name
        if isinstance(self.objective, TiltObjective) and last != CALIBRATION:
            self._adopt()  # where there was no step of it, the net is of generators that moved on
        return self.average_critic, self.average_generator

    def begin_stage(self, stage: Stage, share: float = 1.0) -> None:
        """Makes ready for a stage's steps; see `Task.begin`."""
        self.task.begin(stage.name, share)
        if self.graphs is not None:
            self.graphs.begin()  # what was recorded moves the moments that were there before

    def _change_stage(self, stage: Stage) -> None:
        self.selection.restore()
        self._adopt()
        self.begin_stage(stage)
        self.selection.begin(stage.name)

    def _position(self, stage: Stage) -> tuple[int, int]:
        """Steps of a stage that are done, and how many it has."""
        begin, end = (self.first_step(share) for share in (stage.begin, stage.end))
        return self.steps_done - begin, max(end - begin, 1)

    def first_step(self, share: float) -> int:
        """The step before which that share of the steps is done: where `_stage` begins a stage, rounding and all."""
        nearest = round(share * self.config.steps)
        return nearest if nearest / self.config.steps >= share else nearest + 1

    def _objective_in_use(self) -> Objective | CalibrationObjective | None:
        """That of the next step; None where a calibration has come to rest, or a stage no longer improves."""
        recipe = self.recipe
        if self.selection.exhausted:
            return None
        if self.steps_done / self.config.steps < recipe.calibrate_from_in_use:
            return self.objective
        return self.calibration if self.calibration.ess_fraction >= recipe.calibration.ess else None

    def _take(self, objective: Objective | CalibrationObjective) -> dict[str, float]:
        """Takes a step, reads what it has to tell, and hands it to the objective."""
        at = self.steps_done / self.config.steps
        learn = self._calibrate if objective is self.calibration else self._learn
        self._set_learning_rates(at)
        objective.prepare()
        if self.graphs is None:
            packed = learn(at)
        else:
            kind = (self._stage(self.steps_done).name, self._takes_penalty())
            packed = self.graphs(kind, lambda: learn(at))
        metrics = packed.read()
        objective.commit(metrics)
        return metrics

    def _new_graphs(self, say: Callable[[str], None]) -> StepGraphs | None:
        """Only for GPUs, and for a single process, because what others are doing cannot be recorded."""
        feed, can = self.task.feed, is_gpu(self.task.device) and self.world.size == 1
        if self.config.cuda_graph == "off" or not can or feed is None:
            return None
        interval = self.recipe.penalty.interval if self.recipe.penalty.weight else 1
        return StepGraphs(feed, interval, say)

    def _stage(self, step: int) -> Stage:
        return self.recipe.stage(step / self.config.steps)

    def _adopt(self) -> None:
        """The generator goes on from its average; the critic's net, zero at first, is to tilt that one."""
        self.generator.load_state_dict(self.average_generator.state_dict())
        for critic in (self.critic, self.average_critic):
            self.task.adopt(critic, self.generator)

    def _set_learning_rates(self, at: float) -> None:
        recipe, optimizer = self.recipe, self.recipe.optimizer
        taken, _ = self._position(self._stage(self.steps_done))
        rise = min(1.0, (taken + 1) / (optimizer.rise + 1))
        if at >= recipe.calibrate_from_in_use:
            decay = cosine_decay(at, recipe.calibration.begin, optimizer.decay_to)
            set_learning_rate(self.critic_optimizer, rise * decay * recipe.calibration.learning_rate)
            return
        decay = cosine_decay(at, optimizer.decay_from, optimizer.decay_to, optimizer.decay_until)
        set_learning_rate(self.critic_optimizer, rise * decay * optimizer.critic_learning_rate)
        set_learning_rate(self.generator_optimizer, rise * decay * optimizer.generator_learning_rate)

    def _takes_penalty(self) -> bool:
        penalty = self.recipe.penalty
        return penalty.weight > 0 and self.steps_done % penalty.interval == 0

    def _learn(self, at: float) -> PackedReadings:
        readings = Readings()
        broken = drawn = None
        if at >= self.recipe.warm_up_in_use:
            x = self._data(at)
            drawn = self.objective.draw(at) if self.recipe.batches.shared else None
            broken = self._step_critic(self.objective, self._function, at, readings, x, drawn)
        for _ in range(self.recipe.batches.generator_steps):
            broken = self._step_generator(at, readings, broken, drawn)
            drawn = None  # what comes of the step draws anew
        return readings.pack()

    def _calibrate(self, at: float) -> PackedReadings:
        readings = Readings()
        self._step_critic(self.calibration, self.task.discriminate, at, readings, self._data(at))
        return readings.pack()

    def _data(self, at: float) -> Tensor:
        return self.task.data(self.world.share(self.recipe.batches.data, "batches.data"), at)

    def _step_critic(
        self,
        objective: Objective | CalibrationObjective,
        function: Critic,
        at: float,
        readings: Readings,
        x: Tensor,
        drawn: ScoredSample | None = None,
    ) -> Tensor:
        losses = self._critic_losses(objective, function, at, x, drawn)
        return self._descend(self.critic_optimizer, losses, "critic", readings, None)

    def _critic_losses(
        self,
        objective: Objective | CalibrationObjective,
        function: Critic,
        at: float,
        x: Tensor,
        drawn: ScoredSample | None,
    ) -> Iterator[Loss]:
        recipe = self.recipe
        yield objective.critic_loss(self._in_parts(function), x, at, drawn)
        if self._takes_penalty():
            with as_written(self._compiled):
                squared = self.world.gather(self.task.squared_gradient(x)).mean()
            weight = 0.5 * recipe.penalty.weight * recipe.penalty.interval
            yield Loss(squared, {"squared_gradient": squared}, weight)

    def _step_generator(
        self, at: float, readings: Readings, broken: Tensor | None, drawn: ScoredSample | None
    ) -> Tensor:
        self._train_critic(False)
        try:
            losses = self.objective.generator_losses(self._in_parts(self._function), at, drawn)
            return self._descend(self.generator_optimizer, losses, "generator", readings, broken)
        finally:  # a recording may fail here, and then the step is taken once more
            self._train_critic(True)

    def _train_critic(self, on: bool) -> None:
        for weight in self._weights["critic"]:
            weight.requires_grad_(on)

    def _in_parts(self, function: Critic) -> Critic:
        return lambda x: in_micro_batches(function, x, self.recipe.batches.micro_batch)

    def _descend(
        self,
        optimizer: Adam,
        losses: Iterable[Loss],
        name: str,
        readings: Readings,
        broken: Tensor | None,
    ) -> Tensor:
        def noted() -> Iterator[tuple[Tensor, float]]:
            for loss in losses:
                readings.add_metrics(loss.metrics)
                yield loss.value, loss.weight

        loss, norm, broken = descend(
            optimizer, self._weights[name], noted(), self.recipe.optimizer.gradient_clip, broken, self.world
        )
        readings.add_descent(name, loss, norm)
        return broken

    def _update_averages(self) -> None:
        age = self.steps_done - self._stage(self.steps_done).begin * self.config.steps
        self.world.average_buffers(self.generator)
        self._averages.follow(age, self.recipe.ema)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, with the random numbers of every process."""
        return {
            "steps_done": self.steps_done,
            "log_normalizer": self.objective.log_normalizer,
            "calibration_ess": self.calibration.ess_fraction,
            "selection": self.selection.state_dict(),
            "random": self.world.gather_objects(random_state(self.task.device)),
            **{name: part.state_dict() for name, part in self._parts()},
        }

    def load_state_dict(self, state: dict[str, Any], steps: int | None = None) -> None:
        """Goes on from where `state_dict` was taken, bit for bit, on the same number of processes.

        Args:
            state: what it returned.
            steps: of the whole run that it was taken of; None: as many as of this one. A longer run goes on where its
                own schedules have that step, which may be in an earlier stage.
        """
        self.steps_done, self.objective.log_normalizer = state["steps_done"], state["log_normalizer"]
        self.calibration.ess_fraction = state["calibration_ess"]
        for name, part in self._parts():
            part.load_state_dict(state[name])
        if "selection" in state:  # which version 0.1.0 had not
            self.selection.load_state_dict(state["selection"])
        if self.steps_done:
            last, of = self.steps_done - 1, steps or self.config.steps
            stage = self._stage(last)
            if stage == self.recipe.stage(last / of):
                self.begin_stage(stage)
            else:
                self.calibration.ess_fraction = 1.0
                self._change_stage(stage)
        set_random_state(state["random"][self.world.rank], self.task.device)

    def _parts(self) -> list[tuple[str, Any]]:
        return [(name, getattr(self, name)) for name in _STATEFUL if getattr(self, name) is not None]
