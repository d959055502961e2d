"""Samples of a density, made of draws that know their own: importance resampling, then Langevin transitions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from led_fast.density.annealing import AnnealingPath
from led_fast.density.diagnostics import effective_sample_size
from led_fast.density.proposals import Proposal

_FEWEST_DRAWS = 256
_TUNING_TRANSITIONS = 20
_WANTED_ACCEPTANCE = 0.574  # Roberts and Rosenthal 1998
_FIRST_STEP = 0.1  # of the base's deviation
_ADAPTATION_RATE = 0.5


class WeightsError(ValueError):
    """Importance weights are not finite, or all are zero: there is nothing to choose by."""


class RefinedSample(NamedTuple):
    """Importance-resampled x, (n, ...), and the effective share of the draws they were chosen from."""

    x: Tensor
    ess_fraction: float


@torch.no_grad()
def resample(
    critic: Callable[[Tensor], Tensor], proposal: Proposal, n: int, draws_per_sample: int = 8
) -> RefinedSample:
    """Draws from a critic's density by importance resampling of a proposal's draws, with weights N / q.

    Networks are as they are, in train or eval mode. A draw of large weight comes more than once.

    Args:
        critic: f = log N, (B, ...) -> (B,).
        proposal: draws, and knows its density.
        n: number of samples, positive.
        draws_per_sample: draws for each sample returned, but 256 in all at least: the best of a few is hardly chosen.

    Raises:
        WeightsError: a weight is NaN or infinite, or all weights are zero.
    """
    rounds, at_a_time = [], max(n, -(-_FEWEST_DRAWS // draws_per_sample))
    for _ in range(draws_per_sample):
        y, log_q = proposal.rsample_and_log_prob(at_a_time)
        rounds.append((y, critic(y) - log_q))
    x, log_weights = (torch.cat(parts) for parts in zip(*rounds, strict=True))
    return RefinedSample(
        x[_systematic(log_weights, n)], effective_sample_size(log_weights) / len(log_weights)
    )


def langevin_step_size(path: AnnealingPath, x: Tensor) -> float:
    """A step of Langevin proposals that are accepted about as often as is best, found from points near the target.

    Args:
        path: to the target.
        x: where chains start that are thrown away, (n, ...).
    """
    state, log_step = path.start_from(x), math.log(_FIRST_STEP)
    for _ in range(_TUNING_TRANSITIONS):
        state, acceptance = path.move(state, 1.0, math.exp(log_step), leapfrogs=1)
        log_step += _ADAPTATION_RATE * (acceptance - _WANTED_ACCEPTANCE)
    return math.exp(log_step)


def langevin(path: AnnealingPath, x: Tensor, step_size: float, transitions: int) -> tuple[Tensor, float]:
    """Moves points by Metropolis-adjusted Langevin transitions, which leave the path's target as it is.

    They walk in the latent coordinates of the path's flow.

    Args:
        path: to the target.
        x: the points, (n, ...).
        step_size: fixed, in deviations of the base: see `langevin_step_size`.
        transitions: of each point, at least one.

    Returns:
        Where they end, (n, ...), and the mean acceptance probability.
    """
    state, accepted = path.start_from(x), 0.0
    for _ in range(transitions):
        state, acceptance = path.move(state, 1.0, step_size, leapfrogs=1)
        accepted += acceptance
    with torch.no_grad():
        moved, _ = path.proposal(state.z)
    return moved, accepted / transitions


def _systematic(log_weights: Tensor, n: int) -> Tensor:
    """Indices of n draws in proportion to their weights, in random order.

    Systematic resampling: one uniform offset for n equal strides, so each index comes `n w̄` times, rounded
    up or down.
    """
    if not bool(log_weights.max().isfinite()):
        raise WeightsError("resample: the importance weights are not finite, or all are zero")
    cumulative = log_weights.double().softmax(0).cumsum(0)
    offset = torch.rand((), dtype=torch.float64, device=log_weights.device)
    strides = (torch.arange(n, dtype=torch.float64, device=log_weights.device) + offset) / n
    index = torch.searchsorted(cumulative, strides * cumulative[-1]).clamp(max=len(log_weights) - 1)
    return index[torch.randperm(n, device=index.device)]
