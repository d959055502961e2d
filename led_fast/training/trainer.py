"""One training step of critic and generator, of any task and objective, and the state that it changes."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from led_fast.density import in_micro_batches
from led_fast.random_state import random_state, set_random_state, set_seed
from led_fast.training.config import TrainConfig
from led_fast.training.descent import clip_gradient, follow, set_learning_rate
from led_fast.training.objective import OBJECTIVES, CalibrationObjective, Critic, Objective
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

    Raises:
        ValueError: the recipe calibrates a critic that tilts no generator.
    """

    def __init__(self, config: TrainConfig, source: Source, world: World | None = None) -> None:
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
        self.critic_optimizer = Adam(
            [parameter for network in critics for parameter in network.parameters()],
            recipe.critic_learning_rate,
            recipe.critic_betas or recipe.betas,
            fused=True,
        )
        self.generator_optimizer = Adam(
            self.generator.parameters(), recipe.generator_learning_rate, recipe.betas, fused=True
        )
        if self.world.size > 1:
            self.generator.sample(_START_SAMPLES)  # starts normalisation layers, alike everywhere
            seeds = torch.randint(2**62, (self.world.size,), device="cpu")
            set_seed(int(seeds[self.world.rank]), device)
        self.average_critic = copy.deepcopy(self.critic).eval()
        self.average_generator = copy.deepcopy(self.generator).eval()
        self.steps_done = 0

    def step(self) -> dict[str, float]:
        """One critic step and its generator steps.

        Returns:
            Metrics of the step, of the joint batch of all processes.

        Raises:
            DivergenceError: a loss or a gradient is not finite.
        """
        recipe, at = self.recipe, self.steps_done / self.config.steps
        if self.steps_done and self._stage(self.steps_done) != self._stage(self.steps_done - 1):
            self._adopt()
        metrics = self._calibrate(at) if at >= recipe.calibrate_from_in_use else self._learn(at)
        self._update_averages()
        self.steps_done += 1
        return metrics

    def _stage(self, step: int) -> Stage:
        return self.recipe.stage(step / self.config.steps)

    def _adopt(self) -> None:
        """The generator goes on from its average; the critic's net, zero at first, is to tilt that one."""
        self.generator.load_state_dict(self.average_generator.state_dict())
        for critic in (self.critic, self.average_critic):
            self.task.adopt(critic, self.generator)

    def _learn(self, at: float) -> dict[str, float]:
        recipe, warming_up = self.recipe, at < self.recipe.warm_up_in_use
        decay = cosine_decay(at, recipe.decay_from, recipe.decay_to)
        set_learning_rate(self.critic_optimizer, decay * recipe.critic_learning_rate)
        set_learning_rate(self.generator_optimizer, decay * recipe.generator_learning_rate)
        metrics = {} if warming_up else self._step_critic(self.objective, self._function, at)
        for _ in range(recipe.generator_steps):
            metrics |= self._step_generator(at)
        return metrics

    def _calibrate(self, at: float) -> dict[str, float]:
        recipe = self.recipe
        if self.calibration.ess_fraction < recipe.calibration_ess:
            return {}
        decay = cosine_decay(at, recipe.calibrate_from, recipe.decay_to)
        set_learning_rate(self.critic_optimizer, decay * recipe.calibration_learning_rate)
        return self._step_critic(self.calibration, self.task.discriminate, at)

    def _step_critic(
        self, objective: Objective | CalibrationObjective, function: Critic, at: float
    ) -> dict[str, float]:
        recipe = self.recipe
        x = self.task.data(self.world.share(recipe.batch_size, "batch_size"), at)
        loss, metrics = objective.critic_loss(self._in_parts(function), x, at)
        if recipe.gradient_penalty and self.steps_done % recipe.penalty_interval == 0:
            squared = self.world.gather(self.task.squared_gradient(x)).mean()
            loss = loss + 0.5 * recipe.gradient_penalty * recipe.penalty_interval * squared
            metrics["squared_gradient"] = squared.item()
        self._descend(self.critic_optimizer, self.critic, loss, "critic")
        return metrics

    def _step_generator(self, at: float) -> dict[str, float]:
        self.critic.requires_grad_(False)
        loss, metrics = self.objective.generator_loss(self._in_parts(self._function), at)
        self._descend(self.generator_optimizer, self.generator, loss, "generator")
        self.critic.requires_grad_(True)
        return metrics

    def _in_parts(self, function: Critic) -> Critic:
        return lambda x: in_micro_batches(function, x, self.recipe.micro_batch)

    def _descend(self, optimizer: Optimizer, clipped: nn.Module, loss: Tensor, name: str) -> None:
        optimizer.zero_grad()
        loss.backward()
        self.world.sum_gradients(p for group in optimizer.param_groups for p in group["params"])
        clip_gradient(clipped, self.recipe.gradient_clip, loss, name)
        optimizer.step()

    def _update_averages(self) -> None:
        age = self.steps_done - self._stage(self.steps_done).begin * self.config.steps
        self.world.average_buffers(self.generator)
        follow(self.average_critic, self.critic, age, self.recipe.ema)
        follow(self.average_generator, self.generator, age, self.recipe.ema)

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

    def _parts(self) -> list[tuple[str, Any]]:
        return [(name, getattr(self, name)) for name in _STATEFUL if getattr(self, name) is not None]
