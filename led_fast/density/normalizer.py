"""The log-normaliser log α by importance sampling (Eq. 2), reported so that it can be believed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from led_fast.density.diagnostics import effective_sample_size, max_weight_share, pareto_k, pareto_k_error
from led_fast.density.mode import eval_mode
from led_fast.density.objectives import log_mean_exp
from led_fast.density.proposals import Proposal

MIN_BATCHES = 20
MAX_PARETO_K = 0.7  # the limit of practical convergence, see `pareto_k`; must be out of its standard error
MAX_STANDARD_ERROR = 0.05  # of α, relative: an effective sample size of 400 where there are many more samples
MAX_WEIGHT_SHARE = 0.02  # no single draw may move log α by more than .02


@dataclass(frozen=True)
class NormalizerEstimate:
    """An importance-sampling estimate of log α, in nats, with what it takes to judge it.

    Attributes:
        value: log of the mean weight of all samples; biased low by about half that mean's relative variance.
        ci95: 95 % confidence interval from the spread of the batches' mean weights (Student's t). Its upper end
            lies higher by what a heavy tail is expected to hold beyond the largest weight, `share k̂ / (1 - k̂)` of
            the mean: without it intervals are too narrow from k̂ = 0.5 on, where the variance is infinite.
        samples: number of weights.
        batches: number of independent batches.
        ess_fraction: effective sample size over the number of samples.
        max_weight_share: the largest weight over the sum of all.
        pareto_k: tail shape of the weights, see `pareto_k`.
        reliable: whether no diagnostic objects. None of them can see mass where the proposal never samples:
            set a second, independent estimate beside it.
        reason: what objects; empty where nothing does.
    """

    value: float
    ci95: tuple[float, float]
    samples: int
    batches: int
    ess_fraction: float
    max_weight_share: float
    pareto_k: float
    reliable: bool
    reason: str


def estimate_log_normalizer(
    critic: Callable[[Tensor], Tensor], proposal: Proposal, samples: int = 20_000, batches: int = MIN_BATCHES
) -> NormalizerEstimate:
    """Estimates `log α = log E_q[exp(f(y) - log q(y))]` from independent batches, in eval mode.

    To judge a generator, give the generator itself: in a `CoveringProposal` the weights of two components are
    pooled, and a degenerate one can hide behind the other.

    Args:
        critic: f, (n, ...) -> (n,).
        proposal: has `rsample_and_log_prob(n) -> (y, log_q)`.
        samples: total number, rounded up to a multiple of `batches`.
        batches: independent batches, at least 20.

    Example:
        >>> import torch
        >>> from led_fast import density, flows
        >>> estimate = density.estimate_log_normalizer(lambda y: -y.square().sum(1) / 2, flows.StandardNormal(2))
        >>> round(estimate.value, 4), estimate.reliable  # log 2π
        (1.8379, True)
    """
    if samples < batches:
        raise ValueError(
            f"estimate_log_normalizer: samples must be at least batches = {batches}, got {samples}"
        )
    log_weights = []
    with torch.no_grad(), eval_mode(critic, proposal):
        for _ in range(batches):
            y, log_q = proposal.rsample_and_log_prob(-(-samples // batches))
            log_weights.append(critic(y) - log_q)
    return summarize_log_weights(torch.stack(log_weights))


def summarize_log_weights(log_weights: Tensor) -> NormalizerEstimate:
    """Log α and its diagnostics from log-weights f - log q of shape (batches >= 20, samples per batch).

    Example:
        >>> import torch
        >>> from led_fast.density import summarize_log_weights
        >>> summarize_log_weights(torch.zeros(20, 50)).value
        0.0
    """
    if log_weights.dim() != 2 or len(log_weights) < MIN_BATCHES:
        raise ValueError(
            f"summarize_log_weights: log_weights must have shape (batches, samples per batch), "
            f"{MIN_BATCHES} batches or more, got "
            f"{tuple(log_weights.shape)}"
        )
    log_weights = log_weights.double()
    batches, samples = log_weights.shape[0], log_weights.numel()
    broken = int((log_weights.isnan() | (log_weights == math.inf)).sum())
    if broken or bool((log_weights == -math.inf).all()):
        reason = f"{broken} of {samples} log-weights are NaN or +inf" if broken else "every weight is zero"
        nan = math.nan
        return NormalizerEstimate(nan, (nan, nan), samples, batches, nan, nan, nan, False, reason)

    value = float(log_mean_exp(log_weights.flatten()))
    ess = effective_sample_size(log_weights)
    error = math.sqrt(max(1 / ess - 1 / samples, 0.0))  # of the mean weight, relative
    share = max_weight_share(log_weights)
    k = pareto_k(log_weights)
    k_error = pareto_k_error(k, samples)
    relative = (log_mean_exp(log_weights) - value).exp()  # each batch's mean weight over that of all
    half_width = _student_t_975(batches - 1) * float(relative.std()) / math.sqrt(batches)
    low = value + math.log1p(-half_width) if half_width < 1 else -math.inf
    unseen = share * max(k, 0.0) / (1 - k) if k < 1 else math.inf
    objections = [
        text
        for objects, text in (
            (
                k + k_error > MAX_PARETO_K,
                f"Pareto k {k:.2f} + {k_error:.2f} > {MAX_PARETO_K}: the weights' tail is too heavy",
            ),
            (
                error > MAX_STANDARD_ERROR,
                f"effective sample size {ess:.0f} of {samples}: a standard error of {error:.1%} > "
                f"{MAX_STANDARD_ERROR:.0%}",
            ),
            (share > MAX_WEIGHT_SHARE, f"one weight carries {share:.1%} > {MAX_WEIGHT_SHARE:.0%}"),
        )
        if objects
    ]
    return NormalizerEstimate(
        value=value,
        ci95=(low, value + math.log1p(half_width + unseen)),
        samples=samples,
        batches=batches,
        ess_fraction=ess / samples,
        max_weight_share=share,
        pareto_k=k,
        reliable=not objections,
        reason="; ".join(objections),
    )


class KLGate(NamedTuple):
    """KL(q ‖ N/α) in nats with its 95 % half-width, and whether it can be one: `kl + ci95 >= 0`."""

    kl: float
    ci95: float
    passed: bool


def kl_gate(log_weights: Tensor, log_normalizer: float, log_normalizer_ci95: float = 0.0) -> KLGate:
    """Checks that two reported densities can both be normalised: `E_q[log q - f] + log α >= 0`.

    Args:
        log_weights: f(y) - log q(y) at samples of q, any shape.
        log_normalizer: log α, estimated independently of these samples. (With an estimate from the same
            weights the gate passes by Jensen's inequality.)
        log_normalizer_ci95: half-width of its 95 % interval.

    Example:
        >>> import torch
        >>> from led_fast.density import kl_gate
        >>> kl_gate(torch.zeros(100), log_normalizer=-1.0).passed  # a negative divergence: log α is too small
        False
    """
    log_weights = log_weights.flatten().double()
    kl = log_normalizer - float(log_weights.mean())
    if (
        kl == math.inf and log_normalizer < math.inf
    ):  # q draws where N is zero, which two normalised densities may
        return KLGate(kl, math.inf, True)
    sampling = 1.96 * float(log_weights.std()) / math.sqrt(len(log_weights))
    ci95 = math.hypot(sampling, log_normalizer_ci95)
    return KLGate(kl, ci95, kl + ci95 >= 0)


def _student_t_975(degrees: int) -> float:
    """The 97.5 % quantile of Student's t by Cornish-Fisher expansion: within 1e-4 from 19 degrees on."""
    z = 1.959964
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / degrees + second / degrees**2 + third / degrees**3
