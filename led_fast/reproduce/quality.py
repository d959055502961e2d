"""What the baselines are judged by: the columns of `led_fast.evaluation.evaluate` that they can have."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from led_fast.data import DataSource, GaussianMixture, open_source
from led_fast.evaluation.divergence import divergence_from
from led_fast.evaluation.modes import bridge_percent, count_modes
from led_fast.evaluation.report import QUALITY_SAMPLES

DRAWN = 20_000  # samples for the bridge mass
HELD_OUT = 20_000  # points for KL and likelihood


def mixture_source(data: str) -> tuple[DataSource, GaussianMixture]:
    """The source of a data set whose density is known, and that density."""
    source = open_source(data)
    if source.mixture is None:
        raise ValueError(f"mixture_source: data must be ring or grid, whose density is known, got {data!r}")
    return source, source.mixture


@torch.no_grad()
def sample_quality(samples: Tensor, truth: GaussianMixture) -> dict[str, Any]:
    """Modes and share of high quality of the first 2,500 samples (n, 2), bridge mass of all of them."""
    count = count_modes(samples[:QUALITY_SAMPLES], truth)
    return {
        "modes": count.modes,
        "modes_total": len(truth.centers),
        "high_quality_percent": count.high_quality_percent,
        "bridge_percent": bridge_percent(samples, truth),
    }


@torch.no_grad()
def density_quality(log_prob: Callable[[Tensor], Tensor], truth: GaussianMixture) -> dict[str, Any]:
    """KL(p* ‖ p) and the negative log-likelihood of fresh points under a normalised density, in nats."""
    held_out = truth.sample(HELD_OUT)
    values = log_prob(held_out).double()
    return {
        **divergence_from(truth, held_out, values),
        "held_out_nll": -values.mean().item(),
        "entropy": truth.entropy,
    }
