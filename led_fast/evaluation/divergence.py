"""The divergence of a density from a truth that is known, and errors of means."""

import math

from torch import Tensor

from led_fast.data import GaussianMixture


def standard_error(values: Tensor) -> float:
    """Standard error of the mean of independent values (n,)."""
    return values.std().item() / math.sqrt(len(values))


def divergence_from(truth: GaussianMixture, points: Tensor, log_prob: Tensor) -> dict[str, float]:
    """KL(p* ‖ p) in nats with its standard error, as `kl_data_model` and `kl_data_model_standard_error`.

    Args:
        truth: p*.
        points: draws of it, (n, D).
        log_prob: log p at these points, (n,), float64.
    """
    log_ratio = truth.log_prob(points) - log_prob
    return {
        "kl_data_model": log_ratio.mean().item(),
        "kl_data_model_standard_error": standard_error(log_ratio),
    }
