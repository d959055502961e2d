"""What critic and generator minimise: a likelihood (LED), or the game of a GAN."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from led_fast.density import ProposalDraw, critic_loss, log_mean_exp, mixed_kl_loss
from led_fast.density.diagnostics import kish_size
from led_fast.flows import ScoredSample
from led_fast.training.settings import Recipe
from led_fast.training.task import Task
from led_fast.training.world import World

_MOMENTUM = 0.9
_ANCHOR = 0.1  # of the squared log α of a tilt, in nats
_Number = TypeVar("_Number", float, Tensor)

Critic = Callable[[Tensor], Tensor]


class Loss(NamedTuple):
    """A loss, 0-d, metrics of it, on its device, and its weight beside other losses of the same network."""

    value: Tensor
    metrics: dict[str, Tensor]
    weight: float = 1.0


class Objective(Protocol):
    """The losses of a step, each of the joint batch of all processes.

    What lasts from step to step is moved by `commit`, once the step has turned out to be finite.

    Attributes:
        log_normalizer: running average of log α; None where there is none yet.
    """

    log_normalizer: float | None

    def view(self, critic: nn.Module) -> Critic:
        """What the losses call: the critic's log density, or its network as a classifier."""
        ...

    def prepare(self) -> None:
        """Puts on the device what the next step has to know."""
        ...

    def commit(self, metrics: dict[str, float]) -> None:
        """Takes over the metrics of the step that was just taken."""
        ...

    def draw(self, at: float) -> ScoredSample | None:
        """Samples for the critic's step and the generator's that follows, where both can take the same.

        The critic's step leaves the generator alone, so that their density stays what it is; but the critic has then
        learned from them. `at` is the share of the run that is done.
        """
        ...

    def critic_loss(self, critic: Critic, x: Tensor, at: float, drawn: ScoredSample | None = None) -> Loss:
        """The loss of data x and of proposals, among which are samples that were drawn."""
        ...

    def generator_losses(
        self, critic: Critic, at: float, drawn: ScoredSample | None = None
    ) -> Iterator[Loss]:
        """The losses of the generator, which add up; they share no graph, and so are computed one by one."""
        ...


class LikelihoodObjective:
    """The critic by Eq. 3 (Eq. 4 with one integral sample), the generator by mixed KL divergences (Eq. 5)."""

    def __init__(self, task: Task, recipe: Recipe, world: World) -> None:
        self.task, self.recipe, self.world = task, recipe, world
        self.log_normalizer: float | None = None  # for the floor under the generator's target
        self._before = torch.zeros((), dtype=torch.float64, device=task.device)
        self._now = self._before  # what the step under way makes of it

    def view(self, critic: nn.Module) -> Critic:
        """The log density."""
        return critic

    def prepare(self) -> None:
        """Puts the average of log α on the device."""
        if self.log_normalizer is not None:
            self._before.fill_(self.log_normalizer)
        self._now = self._before

    def commit(self, metrics: dict[str, float]) -> None:
        """Moves the average of log α, where the step has an estimate of it."""
        if (new := metrics.get("log_normalizer")) is not None:
            before = new if self.log_normalizer is None else self.log_normalizer
            self.log_normalizer = _moved(before, new)

    @property
    def _proposed(self) -> int:
        batches = self.recipe.batches
        return self.world.share(batches.integrals * batches.integral_samples, "integral samples")

    @property
    def _generated(self) -> int:
        return self.world.share(self.recipe.batches.generated, "batches.generated")

    def draw(self, at: float) -> ScoredSample | None:
        """Where the generator's step draws at least as many as there may be among the proposals."""
        wanted = self.task.most_generated(self._proposed)
        if self.recipe.likelihood_weight_at(at) == 1 or not 0 < wanted <= self._generated:
            return None
        return self._sample()

    def _sample(self) -> ScoredSample:
        return self.task.generated(self._generated)

    def _proposals(self, n: int, at: float, drawn: ScoredSample | None) -> ProposalDraw:
        return self.task.proposals(n, at) if drawn is None else self.task.proposals(n, at, drawn)

    def critic_loss(self, critic: Critic, x: Tensor, at: float, drawn: ScoredSample | None = None) -> Loss:
        """Negative log-likelihood in nats, and the balance's loss."""
        world, batches, n = self.world, self.recipe.batches, self._proposed
        proposals = self._proposals(n, at, drawn)
        f_data, f_proposal = critic(torch.cat([x, proposals.y])).split([len(x), n])
        f_data, f_proposal, log_q = map(world.gather, (f_data, f_proposal, proposals.log_q))
        loss = critic_loss(f_data, f_proposal, log_q, batches.integral_samples)

        log_weights = (f_proposal - log_q).detach()
        log_normalizer = log_mean_exp(log_weights)
        new = log_normalizer.double()
        self._now = _moved(new if self.log_normalizer is None else self._before, new)
        metrics = {
            "critic_loss": loss,
            "ess_fraction": kish_size(log_weights) / len(log_weights),
            "log_normalizer": log_normalizer,
        }
        if proposals.balance_loss is not None:
            loss = loss + world.gather(proposals.balance_loss[None]).mean()
        if self.task.anchored:
            loss = loss + anchor(f_proposal - log_q)
        return Loss(loss, metrics)

    def generator_losses(
        self, critic: Critic, at: float, drawn: ScoredSample | None = None
    ) -> Iterator[Loss]:
        """The likelihood of data, mixed with KL divergences to the critic; metrics in nats."""
        recipe = self.recipe
        weight = recipe.likelihood_weight_at(at)
        if weight > 0:
            x = self.task.data(self.world.share(recipe.batches.data, "batches.data"), at)
            likelihood = -self.world.gather(self.task.generator.log_prob_bound(x)).mean()
            yield Loss(likelihood, {"generator_nll": likelihood}, weight)
        if weight < 1:
            yield self._divergence(critic, at, drawn)._replace(weight=1 - weight)

    def _divergence(self, critic: Critic, at: float, drawn: ScoredSample | None) -> Loss:
        loss_of, world = self.recipe.generator_loss, self.world
        sample = self._sample() if drawn is None else drawn
        f = critic(sample.y)
        target = self.task.target(f, sample, self._now, at)
        joint = ScoredSample(sample.y, *map(world.gather, sample[1:]))
        forward_weight = self.task.forward_weight(loss_of.forward_weight, at)
        loss = mixed_kl_loss(
            world.gather(target), joint, forward_weight, loss_of.entropy_weight, loss_of.max_weight
        )
        kl = (joint.log_q - world.gather(f)).mean() + self._now
        return Loss(loss, {"generator_loss": loss, "kl_generator_model": kl})


class TiltObjective(LikelihoodObjective):
    """The same, with a critic that tilts the generator as it is at every step: f = net + log q.

    All densities are taken relative to q. So log q is 0, f is the net, and no gradient goes through the generator's
    density: that of the reverse KL is -∇ E[net(y)], because log q in f is a target that stands still, and what is left
    of log q - f beside the net has an expected gradient of 0. Metrics are relative to q as well: `log_normalizer` is
    that of exp(net) under q, `critic_loss` the data's likelihood less that of q. Until a calibration begins, what the
    critic itself gives tilts an older generator.

    Raises:
        ValueError: the critic tilts no generator, or one whose density at a point is not known; a proposal would be of
            another density; no calibration follows, which takes the last generator for its base; or the recipe's k of
            Eq. 5 is not 1.
    """

    def __init__(self, task: Task, recipe: Recipe, world: World) -> None:
        super().__init__(task, recipe, world)
        if not recipe.integrates:
            return  # there is no joint training
        wanted = {
            "a critic that tilts a generator": task.tilts,
            "a generator that can be inverted": task.generator.invertible,
            "proposals of the generator alone": task.balance is None
            and task.most_generated(self._proposed) >= self._proposed,
            "recipe.calibration.begin < 1": recipe.calibration.begin < 1,
            "recipe.generator_loss.entropy_weight = 1": recipe.generator_loss.entropy_weight == 1,
        }
        for what, given in wanted.items():
            if not given:
                raise ValueError(f"TiltObjective: recipe.base = 'current' wants {what}")

    def view(self, critic: nn.Module) -> Critic:
        """The net: the log density relative to the generator's."""
        return self.task.discriminate

    def _sample(self) -> ScoredSample:
        sample = super()._sample()
        none = torch.zeros_like(sample.log_q)
        return sample._replace(log_q=none, log_q_path=none)

    def _proposals(self, n: int, at: float, drawn: ScoredSample | None) -> ProposalDraw:
        proposals = super()._proposals(n, at, drawn)
        return proposals._replace(log_q=torch.zeros_like(proposals.log_q))


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

    def prepare(self) -> None:
        """Nothing: the average decides on the host whether there is a step."""

    def commit(self, metrics: dict[str, float]) -> None:
        """Moves the average, which all processes agree upon, since it decides for all."""
        self.ess_fraction = _moved(self.ess_fraction, self.world.agree(metrics["ess_fraction"]))

    def critic_loss(self, net: Critic, x: Tensor, at: float, drawn: ScoredSample | None = None) -> Loss:
        """Negative log-likelihood in nats, relative to the generator's, and what the weights' lack of ESS costs.

        -log of the effective share estimates the Rényi divergence of order 2 of model from generator, so that holding
        it is a trust region around the generator.
        """
        y = self.task.tilted_samples(self.world.share(self.recipe.calibration.samples, "calibration.samples"))
        at_data, at_samples = net(torch.cat([x, y])).split([len(x), len(y)])
        at_data, at_samples = map(self.world.gather, (at_data, at_samples))
        loss = critic_loss(at_data, at_samples, torch.zeros_like(at_samples))
        ess_fraction = kish_size(at_samples) / len(at_samples)
        metrics = {"critic_loss": loss, "ess_fraction": ess_fraction.detach()}
        if self.task.anchored:
            loss = loss + anchor(at_samples)
        if held := self.recipe.calibration.held_ess:
            loss = loss + (math.log(held) - ess_fraction.log()).clamp(min=0)
        return Loss(loss, metrics)


class GANObjective:
    """The same networks as a plain GAN: the critic a classifier, the generator's density unused.

    The non-saturating losses of Goodfellow et al. 2014, "Generative Adversarial Nets".
    """

    def __init__(self, task: Task, recipe: Recipe, world: World) -> None:
        self.log_normalizer: float | None = None
        self.task, self.recipe, self.world = task, recipe, world

    def view(self, critic: nn.Module) -> Critic:
        """The network of the task's critic, without tail, support or the density that it tilts."""
        return self.task.discriminate

    def prepare(self) -> None:
        """Nothing: a classifier has no log α."""

    def commit(self, metrics: dict[str, float]) -> None:
        """Nothing."""

    def draw(self, at: float) -> ScoredSample | None:
        """Where the generator's step draws at least as many as there are data."""
        batches = self.recipe.batches
        return self._generated() if batches.generated >= batches.data else None

    def _generated(self) -> ScoredSample:
        n = self.world.share(self.recipe.batches.generated, "batches.generated")
        y, log_q = self.task.generator.rsample_and_log_prob(n)
        return ScoredSample(y, log_q, log_q, log_q)

    def critic_loss(self, critic: Critic, x: Tensor, at: float, drawn: ScoredSample | None = None) -> Loss:
        """Cross-entropy of telling data from as many generated samples."""
        y = self.task.generator.sample(len(x)) if drawn is None else drawn.y[: len(x)].detach()
        f_data, f_generated = map(self.world.gather, critic(torch.cat([x, y])).chunk(2))
        loss = F.softplus(-f_data).mean() + F.softplus(f_generated).mean()
        return Loss(loss, {"critic_loss": loss})

    def generator_losses(
        self, critic: Critic, at: float, drawn: ScoredSample | None = None
    ) -> Iterator[Loss]:
        """Cross-entropy of passing for data."""
        y = (self._generated() if drawn is None else drawn).y
        loss = F.softplus(-self.world.gather(critic(y))).mean()
        yield Loss(loss, {"generator_loss": loss})


def anchor(log_weights: Tensor) -> Tensor:
    """What holds a capped tilt's log α near 0.

    The constant of a tilt is free, but a cap is not: far above it the net has no slope, and a constant that had drifted
    there would leave the net at the cap everywhere, for good.
    """
    return _ANCHOR * log_mean_exp(log_weights).square()


def objective_of(recipe: Recipe) -> type[LikelihoodObjective] | type[GANObjective]:
    """What a recipe minimises until its calibration."""
    if recipe.objective == "gan":
        return GANObjective
    return TiltObjective if recipe.base == "current" else LikelihoodObjective


def _moved(average: _Number, new: _Number) -> _Number:
    """A running average after one more value."""
    return _MOMENTUM * average + (1 - _MOMENTUM) * new
