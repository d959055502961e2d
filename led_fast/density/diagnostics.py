"""How far a set of importance weights can be believed."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def effective_sample_size(log_weights: Tensor) -> float:
    """Kish's effective sample size `(Σ w)² / Σ w²`, between 1 and the number of weights; NaN as `max_weight_share`.

    Example:
        >>> import torch
        >>> from led_fast.density import effective_sample_size
        >>> round(effective_sample_size(torch.zeros(100)), 6)  # all weights are equal
        100.0
    """
    return float(kish_size(log_weights))


def kish_size(log_weights: Tensor) -> Tensor:
    """As `effective_sample_size`, a 0-d float64 tensor on the weights' device, which is not waited for."""
    return log_weights.flatten().softmax(0, dtype=torch.float64).square().sum().reciprocal()


def max_weight_share(log_weights: Tensor) -> float:
    """Largest weight over the sum of all; NaN where one is NaN or infinite, or all are 0.

    Example:
        >>> import torch
        >>> from led_fast.density import max_weight_share
        >>> round(max_weight_share(torch.tensor([3.0, 1.0]).log()), 6)
        0.75
    """
    log_weights = log_weights.flatten().double()
    return float((log_weights.max() - log_weights.logsumexp(0)).exp())


def pareto_k(log_weights: Tensor) -> float:
    """Shape k̂ of a generalised Pareto distribution fitted to the largest weights.

    (Vehtari et al. 2024, "Pareto Smoothed Importance Sampling".) The weights have about 1/k̂ finite moments;
    above k̂ = 0.7 estimates from any practical number of samples are unreliable. The tail holds the `min(S/5,
    3 √S)` largest weights. Weights that are all equal have no tail: 0. Fewer than five that tower over all others
    are too few for a fit: infinity.

    Args:
        log_weights: any shape, at least 25 values; -inf stands for weight 0.

    Returns:
        k̂; infinity where a weight is infinite, and NaN where one is NaN or all are 0, since there is no tail to fit.

    Example:
        >>> import torch
        >>> from led_fast.density import pareto_k
        >>> _ = torch.manual_seed(0)
        >>> uniform = torch.rand(10_000, dtype=torch.float64)
        >>> pareto_k(-0.3 * uniform.log()) < 0.5 < 0.7 < pareto_k(-0.9 * uniform.log())  # tails of index .3 and .9
        True
    """
    ordered = log_weights.flatten().double().sort().values  # NaN comes last
    count = len(ordered)
    if count < 25:
        raise ValueError(f"pareto_k: log_weights must be 25 or more, got {count}")
    if not ordered[-1].isfinite():
        return math.inf if ordered[-1] == math.inf else math.nan
    scaled = (ordered[-_tail_size(count) - 1 :] - ordered[-1]).exp()  # relative to the largest weight
    excess = scaled[1:] - scaled[0]
    excess = excess[excess > 1e-12]
    if len(excess) == 0:
        return 0.0
    return fit_generalized_pareto(excess)[0] if len(excess) >= 5 else math.inf


def pareto_k_error(k: float, count: int) -> float:
    """Standard error of `pareto_k` from `count` log-weights: `(1 + k) / √tail`, as of the maximum-likelihood fit."""
    return (1 + k) / math.sqrt(_tail_size(count))


def _tail_size(count: int) -> int:
    return math.ceil(min(0.2 * count, 3 * math.sqrt(count)))


def fit_generalized_pareto(excess: Tensor) -> tuple[float, float]:
    """Fits a generalised Pareto distribution to excesses over a threshold (Zhang and Stephens 2009).

    An empirical-Bayes average over the profile likelihood, without iterations. As in PSIS, ten
    pseudo-observations pull the shape towards 0.5, which steadies it for short tails.

    Args:
        excess: positive values in ascending order, (n,), n >= 5, fp64.

    Returns:
        (k, sigma): shape (positive: heavy-tailed) and scale.
    """
    n = len(excess)
    grid = 30 + math.isqrt(n)
    index = torch.arange(1, grid + 1, dtype=excess.dtype, device=excess.device)
    quartile = excess[int(n / 4 + 0.5) - 1]
    theta = 1 / excess[-1] + (1 - (grid / (index - 0.5)).sqrt()) / (3 * quartile)
    theta = theta[theta.abs() * excess[-1] > 1e-12]  # at 0 the shape is 0 and the scale 0/0; ties can hit it
    shape = torch.log1p(-theta[:, None] * excess).mean(dim=1)
    log_likelihood = n * ((-theta / shape).log() - shape - 1)
    theta_mean = (log_likelihood.softmax(0) * theta).sum()
    k = torch.log1p(-theta_mean * excess).mean()
    sigma = -k / theta_mean
    return float((n * k + 10 * 0.5) / (n + 10)), float(sigma)
