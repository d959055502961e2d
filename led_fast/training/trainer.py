"""One training step of LED: the critic by Eq. 3, the generator by mixed KL divergences, their averages."""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from led_fast.data import DataSource
from led_fast.density import (
    CoveringProposal,
    KernelProposal,
    critic_loss,
    effective_sample_size,
    floored_target,
    log_mean_exp,
    mixed_kl_loss,
)
from led_fast.flows import DiagonalNormal
from led_fast.models import toy_balance, toy_critic, toy_generator
from led_fast.training.config import TrainConfig
from led_fast.training.schedule import cosine_decay, geometric

_NORMALIZER_MOMENTUM = 0.9
_SMALLEST_SPACING = 1e-3  # standard deviations; a single point, drawn again and again, has none


class DivergenceError(RuntimeError):
    """A loss or a gradient is not finite. No weight has been touched by it."""


class Trainer:
    """The whole state of a run, in standardised coordinates.

    All randomness is that of torch's global generator, which the constructor seeds and `state_dict` includes.

    Args:
        config: of the run.
        source: its data.
    """

    def __init__(self, config: TrainConfig, source: DataSource) -> None:
        torch.manual_seed(config.seed)
        recipe = config.recipe
        self.config, self.recipe, self.source = config, recipe, source
        self.critic = toy_critic(config.critic)
        self.generator = toy_generator(config.generator)
        self.balance = toy_balance()
        self.spacing = max(typical_spacing(self._draw_data(recipe.blurred_points)), _SMALLEST_SPACING)
        self.widths = torch.logspace(math.log10(self.spacing), 0, recipe.blur_widths)
        self.broad = DiagonalNormal(torch.zeros(2), recipe.broad_scale)
        balance = self.balance if recipe.balanced else None
        self.proposal = CoveringProposal(self.generator, self.broad, recipe.covering_share, balance)
        self.critic_optimizer = Adam(
            [*self.critic.parameters(), *self.balance.parameters()],
            recipe.critic_learning_rate,
            recipe.betas,
            fused=True,
        )
        self.generator_optimizer = Adam(
            self.generator.parameters(), recipe.generator_learning_rate, recipe.betas, fused=True
        )
        self.average_critic = copy.deepcopy(self.critic).eval()
        self.average_generator = copy.deepcopy(self.generator).eval()
        self.log_normalizer = 0.0  # running average, for the floor under the generator's target
        self.steps_done = 0

    def step(self) -> dict[str, float]:
        """One critic step and its generator steps.

        Returns:
            Metrics of the step: losses in nats, the effective share of the integral samples, log α.

        Raises:
            DivergenceError: a loss or a gradient is not finite.
        """
        recipe, at = self.recipe, self.steps_done / self.config.steps
        decay = cosine_decay(at, recipe.decay_from, recipe.decay_to)
        _set_learning_rate(self.critic_optimizer, decay * recipe.critic_learning_rate)
        _set_learning_rate(self.generator_optimizer, decay * recipe.generator_learning_rate)
        noise = geometric(at, recipe.noise_start, recipe.noise_end * self.spacing, 0, recipe.noise_until)
        floor = geometric(at, recipe.floor_start, recipe.floor_end, recipe.floor_from, recipe.floor_until)
        metrics = self._step_critic(noise)
        for _ in range(recipe.generator_steps):
            metrics["generator_loss"] = self._step_generator(floor)
        self._update_averages()
        self.steps_done += 1
        return metrics

    def _step_critic(self, noise: float) -> dict[str, float]:
        x = self._draw_data(self.recipe.batch_size, noise)
        if self.recipe.broad_share < 1:
            points = self._draw_data(self.recipe.blurred_points, noise)
            self.proposal.broad = KernelProposal(points, self.widths, self.broad, self.recipe.broad_share)
        proposals = self.proposal.propose(self.recipe.integral_samples)
        f_data, f_proposal = self.critic(torch.cat([x, proposals.y])).split([len(x), len(proposals.y)])
        loss = critic_loss(f_data, f_proposal, proposals.log_q)
        balance_loss = 0.0 if proposals.balance_loss is None else proposals.balance_loss
        self._descend(self.critic_optimizer, self.critic, loss + balance_loss, "critic")

        log_weights = (f_proposal - proposals.log_q).detach()
        log_normalizer = log_mean_exp(log_weights).item()
        momentum = _NORMALIZER_MOMENTUM if self.steps_done else 0.0
        self.log_normalizer = momentum * self.log_normalizer + (1 - momentum) * log_normalizer
        return {
            "critic_loss": loss.item(),
            "ess_fraction": effective_sample_size(log_weights) / len(log_weights),
            "log_normalizer": log_normalizer,
        }

    def _step_generator(self, floor: float) -> float:
        self.critic.requires_grad_(False)
        sample = self.generator.rsample_with_score(self.recipe.generator_batch)
        f = self.critic(sample.y)
        target = floored_target(f, self.log_normalizer, self.broad.log_prob(sample.y), floor)
        loss = mixed_kl_loss(
            target, sample, self.recipe.forward_weight, self.recipe.entropy_weight, self.recipe.max_weight
        )
        self._descend(self.generator_optimizer, self.generator, loss, "generator")
        self.critic.requires_grad_(True)
        return (sample.log_q - f).mean().item() + self.log_normalizer

    def _draw_data(self, n: int, noise: float = 0.0) -> Tensor:
        x = self.source.sample(n)
        standardized = ((x - self.source.shift) / self.source.scale).float()
        return standardized + noise * torch.randn_like(standardized)

    def _descend(self, optimizer: Optimizer, clipped: nn.Module, loss: Tensor, name: str) -> None:
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(clipped.parameters(), self.recipe.gradient_clip)
        if not math.isfinite(loss.item() + norm.item()):
            raise DivergenceError(
                f"the {name}'s loss is {loss.item():.3g} and its gradient {norm.item():.3g}"
            )
        optimizer.step()

    @torch.no_grad()
    def _update_averages(self) -> None:
        # Young averages forget faster, so that the initial weights do not linger.
        decay = min(self.recipe.ema, (self.steps_done + 1) / (self.steps_done + 10))
        for average, network in (
            (self.average_critic, self.critic),
            (self.average_generator, self.generator),
        ):
            for old, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
                if old.is_floating_point():
                    old.lerp_(new, 1 - decay)
                else:
                    old.copy_(new)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        return {
            "steps_done": self.steps_done,
            "log_normalizer": self.log_normalizer,
            "random": torch.get_rng_state(),
            **{name: getattr(self, name).state_dict() for name in _STATEFUL},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from where `state_dict` was taken, bit for bit."""
        self.steps_done, self.log_normalizer = state["steps_done"], state["log_normalizer"]
        for name in _STATEFUL:
            getattr(self, name).load_state_dict(state[name])
        torch.set_rng_state(state["random"])


_STATEFUL = (
    "critic",
    "generator",
    "balance",
    "critic_optimizer",
    "generator_optimizer",
    "average_critic",
    "average_generator",
)


def typical_spacing(points: Tensor) -> float:
    """Median distance of distinct points (N, D) to their nearest neighbour: the scale of the finest detail.

    A small table gives most of its rows twice; they count once. 0 where all points are one.
    """
    points = points.unique(dim=0)
    if len(points) == 1:
        return 0.0
    distance = (points[:, None] - points).norm(dim=-1)
    return distance.fill_diagonal_(math.inf).min(1).values.median().item()


def _set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
