"""Mode coverage and sample quality, as the literature on the ring and the grid counts them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from led_fast.data import GaussianMixture

HIGH_QUALITY_RADIUS = 3.0  # standard deviations


@dataclass(frozen=True)
class ModeCount:
    """Modes with at least one high-quality sample, and the share of high-quality samples in percent."""

    modes: int
    high_quality_percent: float


def bridge_percent(samples: Tensor, mixture: GaussianMixture) -> float:
    """Share in percent of samples (n, 2) that are not of high quality: true samples have 1.11."""
    return 100 * (mixture.nearest(samples)[0] > HIGH_QUALITY_RADIUS).double().mean().item()


def count_modes(samples: Tensor, mixture: GaussianMixture) -> ModeCount:
    """Counts modes and high-quality samples.

    A sample is of high quality within 3 standard deviations (Euclidean) of its nearest center. So are
    98.889 % of true samples; a higher share means samples that are too narrow.

    Args:
        samples: (n, 2), n ≥ 1; the literature takes 2,500.
        mixture: the truth.

    Example:
        >>> import torch
        >>> from led_fast.data import ring
        >>> from led_fast.evaluation import count_modes
        >>> count_modes(ring().sample(2500), ring()).modes
        8
    """
    distance, index = mixture.nearest(samples)
    good = distance <= HIGH_QUALITY_RADIUS
    return ModeCount(
        modes=int(torch.unique(index[good]).numel()), high_quality_percent=100 * good.double().mean().item()
    )
