"""What critic and generator minimise: a likelihood (LED), or the game of a GAN."""

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from led_fast.density import critic_loss, effective_sample_size, log_mean_exp, mixed_kl_loss
from led_fast.flows import ScoredSample
from led_fast.training.recipe import Recipe
from led_fast.training.task import Task
from led_fast.training.world import World

_MOMENTUM = 0.9

Critic = Callable[[Tensor], Tensor]
Loss = tuple[Tensor, dict[str, float]]  # and metrics of it


class Objective(Protocol):
    """The two losses of a step, each of the joint batch of all processes.

    Attributes:
        log_normalizer: running average of log α; None where there is none yet.
    """

    log_normalizer: float | None

    def critic_loss(self, critic: Critic, x: Tensor, at: float) -> Loss:
        """The loss of data x and fresh proposals; `at` is the share of the run that is done."""
        ...

    def generator_loss(self, critic: Critic, at: float) -> Loss:
        """The loss of fresh samples of the generator."""
        ...


class LikelihoodObjective:
    """The critic by Eq. 3 (Eq. 4 with one integral sample), the generator by mixed KL divergences (Eq. 5)."""

    def __init__(self, task: Task, recipe: Recipe, world: World) -> None:
        self.task, self.recipe, self.world = task, recipe, world
        self.log_normalizer: float | None = None  # for the floor under the generator's target

    def critic_loss(self, critic: Critic, x: Tensor, at: float) -> Loss:
        """Negative log-likelihood in nats, and the balance's loss."""
        recipe, world = self.recipe, self.world
        n = world.share(recipe.integrals * recipe.integral_samples, "integral samples")
        proposals = self.task.proposals(n, at)
        f_data, f_proposal = critic(torch.cat([x, proposals.y])).split([len(x), n])
        f_data, f_proposal, log_q = map(world.gather, (f_data, f_proposal, proposals.log_q))
        loss = critic_loss(f_data, f_proposal, log_q, recipe.integral_samples)

        log_weights = (f_proposal - log_q).detach()
        log_normalizer = log_mean_exp(log_weights).item()
        before = log_normalizer if self.log_normalizer is None else self.log_normalizer
        self.log_normalizer = _MOMENTUM * before + (1 - _MOMENTUM) * log_normalizer
        metrics = {
            "critic_loss": loss.item(),
            "ess_fraction": effective_sample_size(log_weights) / len(log_weights),
            "log_normalizer": log_normalizer,
        }
        if proposals.balance_loss is not None:
            loss = loss + world.gather(proposals.balance_loss[None]).mean()
        return loss, metrics

    def generator_loss(self, critic: Critic, at: float) -> Loss:
        """The likelihood of data, mixed with KL divergences to the critic; metrics in nats."""
        recipe = self.recipe
        weight = 1.0 if at < recipe.warm_up else recipe.likelihood_weight
        if weight == 0:
            return self._divergence(critic, at)
        x = self.task.data(self.world.share(recipe.batch_size, "batch_size"), at)
        likelihood = -self.world.gather(self.task.generator.log_prob(x)).mean()
        metrics = {"generator_nll": likelihood.item()}
        if weight == 1:
            return likelihood, metrics
        divergence, more = self._divergence(critic, at)
        return weight * likelihood + (1 - weight) * divergence, metrics | more

    def _divergence(self, critic: Critic, at: float) -> Loss:
        recipe, world = self.recipe, self.world
        sample = self.task.generated(world.share(recipe.generator_batch, "generator_batch"))
        f, log_normalizer = critic(sample.y), self.log_normalizer or 0.0
        target = self.task.target(f, sample, log_normalizer, at)
        joint = ScoredSample(sample.y, *map(world.gather, sample[1:]))
        loss = mixed_kl_loss(
            world.gather(target), joint, recipe.forward_weight, recipe.entropy_weight, recipe.max_weight
        )
        kl = (joint.log_q - world.gather(f)).mean().item() + log_normalizer
        return loss, {"generator_loss": loss.item(), "kl_generator_model": kl}


class CalibrationObjective:
    """The critic by Eq. 3 while it tilts the very generator that draws the proposals.

    Its density is the generator's times exp(net), and so the importance weights are those of the net alone. What
    they leave out of the loss does not depend on the net.

    Attributes:
        ess_fraction: running average of the weights' effective share; 1 before the first step.
    """

    def __init__(self, task: Task, recipe: Recipe, world: World) -> None:
        self.task, self.recipe, self.world = task, recipe, world
        self.ess_fraction = 1.0

    def critic_loss(self, net: Critic, x: Tensor, at: float) -> Loss:
        """Negative log-likelihood in nats, relative to the generator's."""
        y = self.task.generator.sample(
            self.world.share(self.recipe.calibration_samples, "calibration_samples")
        )
        at_data, at_samples = net(torch.cat([x, y])).split([len(x), len(y)])
        at_data, at_samples = map(self.world.gather, (at_data, at_samples))
        loss = critic_loss(at_data, at_samples, torch.zeros_like(at_samples))
        # Agreed upon, since it decides whether all processes take the next step.
        ess_fraction = self.world.agree(effective_sample_size(at_samples.detach()) / len(at_samples))
        self.ess_fraction = _MOMENTUM * self.ess_fraction + (1 - _MOMENTUM) * ess_fraction
        return loss, {"critic_loss": loss.item(), "ess_fraction": ess_fraction}


class GANObjective:
    """The same networks as a plain GAN: the critic a classifier, the generator's density unused.

    The non-saturating losses of Goodfellow et al. 2014, "Generative Adversarial Nets".
    """

    def __init__(self, task: Task, recipe: Recipe, world: World) -> None:
        self.log_normalizer: float | None = None
        self.task, self.recipe, self.world = task, recipe, world

    def critic_loss(self, critic: Critic, x: Tensor, at: float) -> Loss:
        """Cross-entropy of telling data from as many generated samples."""
        y = self.task.generator.sample(len(x))
        f_data, f_generated = map(self.world.gather, critic(torch.cat([x, y])).chunk(2))
        loss = F.softplus(-f_data).mean() + F.softplus(f_generated).mean()
        return loss, {"critic_loss": loss.item()}

    def generator_loss(self, critic: Critic, at: float) -> Loss:
        """Cross-entropy of passing for data."""
        y = self.task.generator.rsample(self.world.share(self.recipe.generator_batch, "generator_batch"))
        loss = F.softplus(-self.world.gather(critic(y))).mean()
        return loss, {"generator_loss": loss.item()}


OBJECTIVES: dict[str, type[LikelihoodObjective] | type[GANObjective]] = {
    "led": LikelihoodObjective,
    "gan": GANObjective,
}
