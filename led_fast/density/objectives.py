"""Training objectives of critic and generator (Eq. 3-5), all as batch means to minimise.

Notation: f = log N is the critic's value, q the density that drew a sample, α = ∫ N, S the number of integral
samples.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from led_fast.flows import ScoredSample


def log_mean_exp(log_weights: Tensor, dim: int = -1) -> Tensor:
    """Log of the mean weight along `dim`: for log-weights f - log q, the estimate of log α (Eq. 2).

    Example:
        >>> import torch
        >>> from led_fast.density import log_mean_exp
        >>> log_mean_exp(torch.tensor([1.0, 3.0]).log())  # log 2
        tensor(0.6931)
    """
    return log_weights.logsumexp(dim) - math.log(log_weights.shape[dim])


def critic_loss(
    f_data: Tensor, f_proposal: Tensor, log_q: Tensor, integral_samples: int | None = None
) -> Tensor:
    """The critic's negative log-likelihood, log α by importance sampling (Eq. 3; Eq. 4 with S = 1).

    `-(mean_i f(x_i) - log (1/S) Σ_j exp(f(y_j) - log q(y_j)))`; with M·S proposals, the mean of M such
    losses. Its gradient is the data's mean of -∇f plus the self-normalised importance-weighted mean of
    ∇f(y_j).

    Args:
        f_data: critic at data points, (B,).
        f_proposal: critic at proposals, (N,).
        log_q: log density of the proposals, (N,), no gradient needed.
        integral_samples: S, a divisor of N. None: all N proposals estimate one integral. 1: the Wasserstein
            critic.

    Example:
        >>> import torch
        >>> from led_fast.density import critic_loss
        >>> critic_loss(torch.ones(8), torch.zeros(8), torch.zeros(8))  # log α = 0, f = 1 at data
        tensor(-1.)
    """
    if f_proposal.shape != log_q.shape:
        raise ValueError(
            f"critic_loss: f_proposal and log_q must have one shape, got {tuple(f_proposal.shape)} and "
            f"{tuple(log_q.shape)}"
        )
    log_weights = f_proposal - log_q
    samples = len(log_weights) if integral_samples is None else integral_samples
    if samples < 1 or len(log_weights) % samples:
        raise ValueError(
            f"critic_loss: integral_samples must divide the {len(log_weights)} proposals, got {samples}"
        )
    integrals = log_weights if samples == 1 else log_mean_exp(log_weights.view(-1, samples))
    return integrals.mean() - f_data.mean()


def reverse_kl_loss(f: Tensor, log_q: Tensor, entropy_weight: float = 1.0) -> Tensor:
    """The generator's loss `E[k log q(y) - f(y)]` (Eq. 5): KL(q ‖ N/α) up to the constant log α for k = 1.

    With k < 1 (App. B.4) the generator aims at the narrower exp(f / k), and importance weights N / q lose
    their finite variance, for Gaussians already at k <= 1/2.

    Args:
        f: critic (or floored target) at generator samples, (N,), differentiable in the samples.
        log_q: their log density, (N,): `log_q` of `rsample_and_log_prob` for the plain reparametrised gradient,
            `log_q_path` of `rsample_with_score` for the pathwise gradient, of the same mean and less variance
            near the optimum.
        entropy_weight: k.

    Example:
        >>> import torch
        >>> from led_fast.density import reverse_kl_loss
        >>> reverse_kl_loss(f=torch.tensor([1.0, 3.0]), log_q=torch.tensor([0.0, 1.0]))
        tensor(-1.5000)
    """
    return (log_q - f if entropy_weight == 1 else entropy_weight * log_q - f).mean()


def forward_kl_loss(f: Tensor, sample: ScoredSample, max_weight: float = 20.0) -> Tensor:
    """`-Σ_j w̄_j log q(y_j)` at fixed y_j: KL(N/α ‖ q) up to a constant, by importance sampling from q.

    It charges the generator for modes of the critic that it draws too rarely, which the reverse KL forgives.

    Args:
        f: critic (or floored target) at `sample.y`, (N,).
        sample: from `OneWayFlow.rsample_with_score`.
        max_weight: each normalised weight is clipped at this many times 1/N, then all are normalised again: a
            biased gradient of finite variance.

    Example:
        >>> import torch
        >>> from led_fast import density, flows
        >>> generator = flows.OneWayFlow(flows.StandardNormal(2), [flows.Linear(2)])
        >>> sample = generator.rsample_with_score(64)
        >>> density.forward_kl_loss(-sample.y.square().sum(1), sample).backward()
    """
    with torch.no_grad():
        weights = (f - sample.log_q).softmax(0).clamp(max=max_weight / len(f))
        weights = weights / weights.sum()
    return -(weights * sample.log_q_fixed).sum()


def mixed_kl_loss(
    f: Tensor,
    sample: ScoredSample,
    forward_weight: float = 0.5,
    entropy_weight: float = 1.0,
    max_weight: float = 20.0,
) -> Tensor:
    """`(1 - v)` times the pathwise reverse KL plus `v` times the clipped forward KL, v = forward_weight.

    Example:
        >>> import torch
        >>> from led_fast import density, flows
        >>> generator = flows.OneWayFlow(flows.StandardNormal(2), [flows.Linear(2)])
        >>> sample = generator.rsample_with_score(64)
        >>> density.mixed_kl_loss(-sample.y.square().sum(1), sample, forward_weight=0.5).backward()
    """
    if not 0 <= forward_weight <= 1:
        raise ValueError(f"mixed_kl_loss: forward_weight must lie in [0, 1], got {forward_weight}")
    reverse = reverse_kl_loss(f, sample.log_q_path, entropy_weight)
    if forward_weight == 0:
        return reverse
    return forward_weight * forward_kl_loss(f, sample, max_weight) + (1 - forward_weight) * reverse


def floored_target(f: Tensor, log_normalizer: Tensor | float, log_broad: Tensor, floor: float) -> Tensor:
    """The target with a floor under it: the log of `(1 - ε) N + ε α b`, b a broad normalised density.

    Without a floor, points between modes cost a generator hundreds of nats and it drops modes instead.

    Args:
        f: critic at generator samples, (N,).
        log_normalizer: current estimate of log α.
        log_broad: log b at the same samples, (N,), differentiable in them.
        floor: ε in [0, 1); 0 leaves f alone.

    Example:
        >>> import torch
        >>> from led_fast.density import floored_target
        >>> floored_target(torch.tensor([-500.0]), 0.0, log_broad=torch.tensor([-2.0]), floor=0.1)
        tensor([-4.3026])
    """
    if not 0 <= floor < 1:
        raise ValueError(f"floored_target: floor must lie in [0, 1), got {floor}")
    if floor == 0:
        return f
    return torch.logaddexp(f + math.log1p(-floor), log_broad + (log_normalizer + math.log(floor)))
