"""A smooth upper bound of a tilt, so that importance weights are bounded."""

import math

import torch.nn.functional as F
from torch import Tensor


def capped(tilt: Tensor, cap: float) -> Tensor:
    """0 at 0, never more than `least_upper_bound(cap)`, and far below the cap the tilt but for a constant, in nats."""
    return cap - F.softplus(cap - tilt) + math.log1p(math.exp(-cap))


def least_upper_bound(cap: float) -> float:
    """What `capped` comes to where the tilt is large, in nats."""
    return cap + math.log1p(math.exp(-cap))
