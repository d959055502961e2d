"""The log-normaliser log α by annealed importance sampling, from below and from above."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from led_fast.density.annealing import AnnealingPath, AnnealingSchedule, tune_annealing
from led_fast.density.mode import eval_mode
from led_fast.density.normalizer import MIN_BATCHES, NormalizerEstimate, summarize_log_weights
from led_fast.flows import OneWayFlow

MIN_ACCEPTANCE = 0.2  # mean over all temperatures; below, the chains do not keep up with the annealing


@dataclass(frozen=True)
class AnnealedEstimate(NormalizerEstimate):
    """An annealed estimate of log α: `samples` counts chains, each with one weight.

    Attributes:
        standard_error: of `value`, from the spread of the weights.
        temperatures: number of intervals between inverse temperatures.
        leapfrogs: leapfrog steps of the transition at each.
        acceptance: mean acceptance rate of the transitions.
        schedule_length: see `AnnealingSchedule.length`.
    """

    standard_error: float
    temperatures: int
    leapfrogs: int
    acceptance: float
    schedule_length: float


@dataclass(frozen=True)
class AnnealedBracket:
    """Log α between a stochastic lower and a stochastic upper bound.

    Attributes:
        forward: from the base to the critic's density; its mean is below log α, as that of all importance
            sampling.
        reverse: from samples of the critic's density to the base; its mean is above log α if the samples
            are exact. None where no samples were given.
    """

    forward: AnnealedEstimate
    reverse: AnnealedEstimate | None

    @property
    def gap(self) -> float:
        """Upper bound less lower bound, in nats: it closes as the temperatures become more."""
        return math.nan if self.reverse is None else self.reverse.value - self.forward.value


def annealed_log_normalizer(
    critic: Callable[[Tensor], Tensor],
    proposal: OneWayFlow,
    samples: Tensor | None = None,
    temperatures: int = 200,
    chains: int = 1000,
    leapfrogs: int = 1,
    at_a_time: int | None = None,
) -> AnnealedBracket:
    """Brackets log α by annealed importance sampling in both directions, in eval mode.

    (Neal 2001, "Annealed Importance Sampling"; Grosse et al. 2015, "Sandwiching the Marginal Likelihood Using
    Bidirectional Monte Carlo".) Chains walk over a geometric path of densities from the proposal's to the
    critic's, or back, in the proposal's latent coordinates. Temperatures and step sizes come from a warm-up and
    stay as they are, so that the mean weight of the forward chains is α, that of the reverse ones 1/α.

    Start from a broad proposal to find mass where the generator never draws; from a bijective generator to
    correct it. Any shape (B, ...) will do. A critic that is -inf outside of a box wants a proposal in the box, e.g.
    `OneWayFlow(DiagonalNormal(...), [Sigmoid()])`: chains never enter where it is -inf.

    Args:
        critic: f, (B, ...) -> (B,), differentiable.
        proposal: a bijective flow, whose base has `log_prob`.
        samples: (n, ...), at least 40, of the critic's density, to start the reverse chains from; in random
            order. It is an upper bound only if they are exact. Refined samples of a `DensityModel` are
            approximate: they cover what its generator covers, so that both the bound and its interval are to
            be read as "if the generator drops no mode".
        temperatures: number of intervals between inverse temperatures, at least 2.
        chains: of the forward run, rounded up to a multiple of 20 batches.
        leapfrogs: steps of a transition. 1, Langevin Monte Carlo, suits the plane; hundreds of dimensions want
            some 5.
        at_a_time: forward chains that are in memory at once; None: all.

    Raises:
        ValueError: too few temperatures, chains or samples; or the proposal is no bijection.
        TypeError: samples are given, and the proposal has a layer that cannot be inverted.
        AnnealingError: the warm-up did not reach the critic's density.

    Example:
        >>> import torch
        >>> from led_fast import density, flows
        >>> proposal = flows.OneWayFlow(flows.DiagonalNormal(torch.zeros(2), 2.0), [])
        >>> bracket = density.annealed_log_normalizer(
        ...     lambda y: -y.square().sum(1) / 2, proposal, temperatures=20, chains=100
        ... )
        >>> abs(bracket.forward.value - 1.8379) < 0.5  # log 2π
        True
    """
    if temperatures < 2 or leapfrogs < 1:
        raise ValueError(
            "annealed_log_normalizer: temperatures and leapfrogs must be at least 2 and 1, got "
            f"{temperatures} and {leapfrogs}"
        )
    for name, count in (("chains", chains), ("samples", len(samples) if samples is not None else chains)):
        if count < 2 * MIN_BATCHES:
            raise ValueError(
                f"annealed_log_normalizer: {name} must be at least {2 * MIN_BATCHES}, got {count}"
            )
    with eval_mode(critic, proposal):
        path = AnnealingPath(critic, proposal)
        schedule = tune_annealing(path, temperatures, leapfrogs)
        forward = anneal_forward(path, schedule, -(-chains // MIN_BATCHES) * MIN_BATCHES, at_a_time)
        reverse = None if samples is None else anneal_reverse(path, schedule, samples)
    return AnnealedBracket(forward, reverse)


def anneal_forward(
    path: AnnealingPath, schedule: AnnealingSchedule, chains: int, at_a_time: int | None = None
) -> AnnealedEstimate:
    """Annealed importance sampling from the base: a stochastic lower bound.

    Args:
        path: from the base to the critic's density.
        schedule: tuned beforehand.
        chains: number of chains, a multiple of 20.
        at_a_time: how many are in memory at once; None: all.
    """
    betas = schedule.betas
    weights, accepted = [], []
    for part in torch.empty(chains).split(at_a_time or chains):
        state = path.start(len(part))
        log_weights = (betas[1] - betas[0]) * state.log_ratio
        for k, step_size in enumerate(schedule.step_sizes, start=1):
            state, acceptance = path.move(state, betas[k], step_size, schedule.leapfrogs)
            log_weights += (betas[k + 1] - betas[k]) * state.log_ratio
            accepted.append(acceptance)
        weights.append(log_weights)
    return _summarize(torch.cat(weights), schedule, accepted)


def anneal_reverse(path: AnnealingPath, schedule: AnnealingSchedule, samples: Tensor) -> AnnealedEstimate:
    """Annealed importance sampling from samples of the target back to the base: a stochastic upper bound.

    Args:
        path: from the base to the critic's density.
        schedule: tuned beforehand.
        samples: of the critic's density, (n, ...), in random order; the last n % 20 are left out.
    """
    betas = schedule.betas
    state = path.start_from(samples[: len(samples) // MIN_BATCHES * MIN_BATCHES])
    log_weights = (betas[-2] - betas[-1]) * state.log_ratio
    accepted = []
    for k in range(len(schedule.step_sizes), 0, -1):
        state, acceptance = path.move(state, betas[k], schedule.step_sizes[k - 1], schedule.leapfrogs)
        log_weights += (betas[k - 1] - betas[k]) * state.log_ratio
        accepted.append(acceptance)
    inverse = _summarize(log_weights, schedule, accepted)
    low, high = inverse.ci95
    return replace(inverse, value=-inverse.value, ci95=(-high, -low))


def _summarize(log_weights: Tensor, schedule: AnnealingSchedule, accepted: list[float]) -> AnnealedEstimate:
    estimate = summarize_log_weights(log_weights.view(MIN_BATCHES, -1))
    acceptance = sum(accepted) / len(accepted)
    slow = acceptance < MIN_ACCEPTANCE
    objection = f"acceptance rate {acceptance:.2f} < {MIN_ACCEPTANCE}" if slow else ""
    return AnnealedEstimate(
        **asdict(estimate)
        | {
            "reliable": estimate.reliable and not slow,
            "reason": "; ".join(filter(None, (estimate.reason, objection))),
        },
        # The variance of the mean weight, over its square; NaN stays NaN.
        standard_error=math.sqrt(max((1 / estimate.ess_fraction - 1) / estimate.samples, 0.0)),
        temperatures=len(schedule.betas) - 1,
        leapfrogs=schedule.leapfrogs,
        acceptance=acceptance,
        schedule_length=schedule.length,
    )
