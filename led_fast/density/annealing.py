"""The path from a base density to a critic's, and transitions that leave every density on it invariant."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from led_fast.density.diagnostics import effective_sample_size
from led_fast.flows import OneWayFlow

_WARM_UP_SPREAD = 0.5  # of the log-weights' increments at each temperature of the warm-up, in nats
_WARM_UP_TRANSITIONS = 2  # at each temperature
_MOST_WARM_UP_TEMPERATURES = 5000
_WANTED_ACCEPTANCE = 0.6  # near the best of Langevin proposals, .574 (Roberts and Rosenthal 1998)
_ADAPTATION_RATE = 0.5
_STEP_RANGE = 10.0
_SCALE_DRAWS = 1000


class AnnealingError(RuntimeError):
    """The warm-up did not get from the base to the target."""


class ChainState(NamedTuple):
    """Positions of the chains, (B, ...), with the log densities of base and target there and their gradients."""

    z: Tensor
    log_base: Tensor
    base_gradient: Tensor
    log_target: Tensor
    target_gradient: Tensor

    @property
    def log_ratio(self) -> Tensor:
        """`log target - log base`, (B,), float64."""
        return self.log_target.double() - self.log_base.double()


class AnnealingPath:
    """The densities `π_β ∝ base^(1-β) target^β` in the latent coordinates z of a bijective flow g.

    The target is the critic's density pulled back through the flow, `f(g(z)) + log|det ∂g/∂z|`. Its integral is
    that of the critic. A flow without layers leaves the coordinates alone; one that ends in a `Sigmoid` frees
    chains in a box from its walls.

    Args:
        critic: f, (B, ...) -> (B,), differentiable.
        proposal: base density, with `log_prob`, and layers g.

    Raises:
        ValueError: the flow is no bijection: it adds noise, or changes the dimension.
    """

    def __init__(self, critic: Callable[[Tensor], Tensor], proposal: OneWayFlow) -> None:
        self.critic, self.proposal = critic, proposal
        if not proposal.bijective:
            raise ValueError("AnnealingPath: proposal must be bijective, got a flow with a layer that is not")
        with torch.no_grad():
            # The spread of each coordinate of the base, in whose units the steps are.
            self._scale = proposal.base.rsample(_SCALE_DRAWS).std(dim=0)

    def start(self, chains: int) -> ChainState:
        """Chains at independent draws of the base."""
        return self.at(self.proposal.base.rsample(chains))

    def start_from(self, samples: Tensor) -> ChainState:
        """Chains at given points y = g(z); TypeError where a layer of the flow cannot be inverted."""
        with torch.no_grad():
            return self.at(self.proposal.inverse(samples)[0].to(self._scale.dtype))

    @torch.enable_grad()
    def at(self, z: Tensor) -> ChainState:
        """Chains at given latent positions."""
        z = z.detach().requires_grad_()
        log_base = self.proposal.base.log_prob(z)
        (base_gradient,) = torch.autograd.grad(log_base.sum(), z)
        y, ladj = self.proposal(z)
        log_target = self.critic(y) + ladj
        (target_gradient,) = torch.autograd.grad(log_target.sum(), z)
        return ChainState(z.detach(), log_base.detach(), base_gradient, log_target.detach(), target_gradient)

    def move(
        self, state: ChainState, beta: float, step_size: float, leapfrogs: int
    ) -> tuple[ChainState, float]:
        """One transition of Hamiltonian Monte Carlo at π_β; of Metropolis-adjusted Langevin for one leapfrog.

        Returns:
            The chains' next states and their mean acceptance probability. A move to where a log density is -inf
            or NaN is never accepted.
        """
        momentum = torch.randn_like(state.z)
        # A chain's own share of the step, log-uniform from all to a tenth: at one temperature some chains may cross
        # a plateau and others sit in narrow modes.
        share = _STEP_RANGE ** -torch.rand_like(state.log_base)
        step = step_size * share.view(-1, *[1] * (momentum.dim() - 1)) * self._scale
        energy = 0.5 * _squared_norm(momentum) - _mix(state.log_base, state.log_target, beta)
        new, gradient = state, _mix(state.base_gradient, state.target_gradient, beta)
        for i in range(leapfrogs):
            momentum = momentum + (0.5 if i == 0 else 1.0) * step * gradient
            new = self.at(new.z + step * momentum)
            gradient = _mix(new.base_gradient, new.target_gradient, beta)
        momentum = momentum + 0.5 * step * gradient
        log_accept = energy + _mix(new.log_base, new.log_target, beta) - 0.5 * _squared_norm(momentum)
        accepted = torch.rand_like(log_accept).log() < log_accept  # False for NaN
        merged = [
            torch.where(accepted.view(-1, *[1] * (old.dim() - 1)), moved, old)
            for old, moved in zip(state, new, strict=True)
        ]
        return ChainState(*merged), float(log_accept.exp().clamp(max=1).nan_to_num(0).mean())


@dataclass(frozen=True)
class AnnealingSchedule:
    """Temperatures and step sizes, fixed before a measured run: adapted in it, they would bias its result.

    Attributes:
        betas: K + 1 inverse temperatures, from 0 to 1.
        step_sizes: of the leapfrog at each of the K - 1 between them, in standard deviations of the base.
        leapfrogs: steps of one transition.
        length: thermodynamic length, about `∫ sd_β(log target - log base) dβ`. Where the chains keep up, the
            log-weights' variance is some length² / K.
    """

    betas: list[float]
    step_sizes: list[float]
    leapfrogs: int
    length: float


def tune_annealing(
    path: AnnealingPath, temperatures: int, leapfrogs: int = 1, chains: int = 100
) -> AnnealingSchedule:
    """Spaces temperatures so that each changes the density by as much, and finds step sizes that are accepted.

    A warm-up, whose chains are thrown away: from one temperature it goes as far as the chains' log-weights
    would spread by half a nat, resamples the chains by these weights, and adapts the step size there.

    Args:
        path: from the base to the target.
        temperatures: K, number of intervals between inverse temperatures.
        leapfrogs: steps of one transition.
        chains: of the warm-up.

    Raises:
        AnnealingError: the warm-up does not reach the target: no chain is at a finite density, or the densities
            are too far apart.
    """
    state, beta, log_step = path.start(chains), 0.0, 0.0
    lengths, betas, log_steps = [0.0], [0.0], [0.0]
    while beta < 1:
        ratio = torch.where(state.log_ratio.isfinite(), state.log_ratio, -math.inf)
        step = _next_step(ratio, 1 - beta)
        if step == 0 or len(betas) > _MOST_WARM_UP_TEMPERATURES:
            raise AnnealingError(
                f"tune_annealing: the warm-up stopped at β = {beta:.2g} after {len(betas) - 1} temperatures; "
                "start from a base that is nearer to the target"
            )
        beta += step
        increments = step * ratio
        lengths.append(lengths[-1] + _spread(increments))
        survivors = torch.multinomial(increments.softmax(0), chains, replacement=True)
        state = ChainState(*(part[survivors] for part in state))
        for _ in range(_WARM_UP_TRANSITIONS):
            state, acceptance = path.move(state, beta, math.exp(log_step), leapfrogs)
            log_step += _ADAPTATION_RATE * (acceptance - _WANTED_ACCEPTANCE)
        betas.append(beta)
        log_steps.append(log_step)
    at = np.linspace(0, lengths[-1], temperatures + 1)
    inner = np.interp(at, lengths, betas)[1:-1]
    step_sizes = np.exp(np.interp(at, lengths, log_steps)[1:-1])
    return AnnealingSchedule([0.0, *inner.tolist(), 1.0], step_sizes.tolist(), leapfrogs, lengths[-1])


def _next_step(log_ratio: Tensor, longest: float) -> float:
    """The step in β that spreads the log-weights of chains at one temperature by half a nat; by bisection."""
    finite = log_ratio[log_ratio > -math.inf]
    low, high = 0.0, longest if len(finite) else 0.0
    if high == 0 or _spread(high * finite) <= _WARM_UP_SPREAD:
        return high
    while high - low > 0.01 * high:
        middle = (low + high) / 2 if low else high / 10
        if _spread(middle * finite) < _WARM_UP_SPREAD:
            low = middle
        else:
            high = middle
    return low


def _spread(log_weights: Tensor) -> float:
    """The weights' relative standard deviation, deaf to low weights, that of chains left behind among them."""
    return math.sqrt(max(0.0, len(log_weights) / effective_sample_size(log_weights) - 1))


def _mix(base: Tensor, target: Tensor, beta: float) -> Tensor:
    return (1 - beta) * base + beta * target


def _squared_norm(momentum: Tensor) -> Tensor:
    return momentum.flatten(1).square().sum(dim=1)
