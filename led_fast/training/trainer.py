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
from led_fast.gpu import is_gpu
from led_fast.random_state import random_state, set_random_state, set_seed
from led_fast.training.config import TrainConfig
from led_fast.training.descent import RunningAverages, adam, descend, set_learning_rate
from led_fast.training.graph import StepGraphs
from led_fast.training.objective import OBJECTIVES, CalibrationObjective, Critic, Loss, Objective
from led_fast.training.precision import use_precision
from led_fast.training.readings import PackedReadings, Readings
from led_fast.training.recipe import Stage
from led_fast.training.schedule import cosine_decay
from led_fast.training.task import Source, device_of, make_task
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
        ValueError: the recipe calibrates a critic that tilts no generator.
    """

    def __init__(
        self,
        config: TrainConfig,
        source: Source,
        world: World | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        recipe, device = config.recipe, device_of(config)
        set_seed(config.seed, device)
        self.config, self.recipe, self.source, self.world = config, recipe, source, world or World()
        self.task = make_task(config, source, self.world)
        if recipe.calibrate_from_in_use < 1 and not self.task.tilts:
            raise ValueError(
                "Trainer: a recipe with calibrate_from < 1 wants a critic that tilts a generator"
            )
        self.critic, self.generator, self.balance = self.task.critic, self.task.generator, self.task.balance
        self._function = self.task.discriminate if recipe.objective == "gan" else self.critic
        self.objective: Objective = OBJECTIVES[recipe.objective](self.task, recipe, self.world)
        self.calibration = CalibrationObjective(self.task, recipe, self.world)
        critics = [self.critic] if self.balance is None else [self.critic, self.balance]
        self.critic_optimizer = adam(
            (parameter for network in critics for parameter in network.parameters()),
            recipe.critic_learning_rate,
            recipe.critic_betas or recipe.betas,
        )
        self.generator_optimizer = adam(
            self.generator.parameters(), recipe.generator_learning_rate, recipe.betas
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
        use_precision(config.precision, self.critic, self.balance)  # not the averages, which make the model
        self.steps_done = 0
        self.graphs = self._new_graphs(say)

    def step(self) -> dict[str, float]:
        """One critic step and its generator steps.

        Returns:
            Metrics of the step, of the joint batch of all processes.

        Raises:
            DivergenceError: a loss or a gradient is not finite.
        """
        if self.steps_done and self._stage(self.steps_done) != self._stage(self.steps_done - 1):
            self._adopt()
            if self.graphs is not None:
                self.graphs.begin()
        objective = self._objective_in_use()
        metrics = self._take(objective) if objective is not None else {}
        self._update_averages()
        self.steps_done += 1
        return metrics

    def _objective_in_use(self) -> Objective | CalibrationObjective | None:
        """That of the next step; None where a calibration has come to rest."""
        recipe = self.recipe
        if self.steps_done / self.config.steps < recipe.calibrate_from_in_use:
            return self.objective
        return self.calibration if self.calibration.ess_fraction >= recipe.calibration_ess else None

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
        interval = self.recipe.penalty_interval if self.recipe.gradient_penalty else 1
        return StepGraphs(feed, interval, say)

    def _stage(self, step: int) -> Stage:
        return self.recipe.stage(step / self.config.steps)

    def _adopt(self) -> None:
        """The generator goes on from its average; the critic's net, zero at first, is to tilt that one."""
        self.generator.load_state_dict(self.average_generator.state_dict())
        for critic in (self.critic, self.average_critic):
            self.task.adopt(critic, self.generator)

    def _set_learning_rates(self, at: float) -> None:
        recipe = self.recipe
        if at >= recipe.calibrate_from_in_use:
            decay = cosine_decay(at, recipe.calibrate_from, recipe.decay_to)
            set_learning_rate(self.critic_optimizer, decay * recipe.calibration_learning_rate)
            return
        decay = cosine_decay(at, recipe.decay_from, recipe.decay_to)
        set_learning_rate(self.critic_optimizer, decay * recipe.critic_learning_rate)
        set_learning_rate(self.generator_optimizer, decay * recipe.generator_learning_rate)

    def _takes_penalty(self) -> bool:
        return self.recipe.gradient_penalty > 0 and self.steps_done % self.recipe.penalty_interval == 0

    def _learn(self, at: float) -> PackedReadings:
        readings = Readings()
        broken = None
        if at >= self.recipe.warm_up_in_use:
            broken = self._step_critic(self.objective, self._function, at, readings)
        for _ in range(self.recipe.generator_steps):
            broken = self._step_generator(at, readings, broken)
        return readings.pack()

    def _calibrate(self, at: float) -> PackedReadings:
        readings = Readings()
        self._step_critic(self.calibration, self.task.discriminate, at, readings)
        return readings.pack()

    def _step_critic(
        self, objective: Objective | CalibrationObjective, function: Critic, at: float, readings: Readings
    ) -> Tensor:
        losses = self._critic_losses(objective, function, at)
        return self._descend(self.critic_optimizer, self.critic, losses, "critic", readings, None)

    def _critic_losses(
        self, objective: Objective | CalibrationObjective, function: Critic, at: float
    ) -> Iterator[Loss]:
        recipe = self.recipe
        x = self.task.data(self.world.share(recipe.batch_size, "batch_size"), at)
        yield objective.critic_loss(self._in_parts(function), x, at)
        if self._takes_penalty():
            squared = self.world.gather(self.task.squared_gradient(x)).mean()
            weight = 0.5 * recipe.gradient_penalty * recipe.penalty_interval
            yield Loss(squared, {"squared_gradient": squared}, weight)

    def _step_generator(self, at: float, readings: Readings, broken: Tensor | None) -> Tensor:
        self.critic.requires_grad_(False)
        try:
            losses = self.objective.generator_losses(self._in_parts(self._function), at)
            return self._descend(
                self.generator_optimizer, self.generator, losses, "generator", readings, broken
            )
        finally:  # a recording may fail here, and then the step is taken once more
            self.critic.requires_grad_(True)

    def _in_parts(self, function: Critic) -> Critic:
        return lambda x: in_micro_batches(function, x, self.recipe.micro_batch)

    def _descend(
        self,
        optimizer: Adam,
        clipped: nn.Module,
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
            optimizer, clipped, noted(), self.recipe.gradient_clip, broken, self.world
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
            "random": self.world.gather_objects(random_state(self.task.device)),
            **{name: part.state_dict() for name, part in self._parts()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from where `state_dict` was taken, bit for bit, on the same number of processes."""
        self.steps_done, self.objective.log_normalizer = state["steps_done"], state["log_normalizer"]
        self.calibration.ess_fraction = state["calibration_ess"]
        for name, part in self._parts():
            part.load_state_dict(state[name])
        set_random_state(state["random"][self.world.rank], self.task.device)
        if self.graphs is not None:
            self.graphs.begin()  # what was recorded moves the moments that were there before

    def _parts(self) -> list[tuple[str, Any]]:
        return [(name, getattr(self, name)) for name in _STATEFUL if getattr(self, name) is not None]
