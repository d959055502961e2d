"""Bits per dimension."""

from __future__ import annotations

import math
from typing import TypeVar

from torch import Tensor

_Value = TypeVar("_Value", float, Tensor)


def bits_per_dim(log_prob: _Value, dims: int, levels: int = 256, value_range: float = 1.0) -> _Value:
    """Bits per dimension of uniformly dequantised data: `-log p / (D ln 2) + log2(levels / range)`.

    The second term turns the density of the scaled continuous values into the probability of the discrete
    ones: +8 for 8-bit data on [0, 1], +7 on [-1, 1]; the uniform density gives 8.00 on either. The number
    means nothing for data that were not dequantised (Theis et al. 2016, "A note on the evaluation of
    generative models").

    The paper's b/p is `bits_per_dim(log_prob, pixels, levels=1)`: no second term, and D counts pixels, not
    channels.

    Args:
        log_prob: mean log density of the data, in nats: mean f(x) - log α; or a tensor of log densities.
        dims: D, channels included.
        levels: number of discrete values before dequantisation.
        value_range: length of the interval to which they were scaled.

    Example:
        >>> from led_fast.density import bits_per_dim
        >>> bits_per_dim(0.0, dims=1024)  # the uniform density of 8-bit images on [0, 1]
        8.0
    """
    if dims < 1 or levels < 1 or not value_range > 0:
        raise ValueError(
            f"bits_per_dim: dims, levels and value_range must be positive, got {dims}, {levels}, {value_range}"
        )
    return -log_prob / (dims * math.log(2)) + math.log2(levels / value_range)
