"""Fourier features of a low-dimensional input."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from led_fast.ops.fourier_features import fourier_features

_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


class FourierFeatures(nn.Module):
    """Appends sines and cosines of projections of all scales: `x -> [x, sin(x B), cos(x B)]`.

    A perceptron of raw coordinates cannot resolve modes much narrower than their distance; one of these
    features can (Tancik et al. 2020, "Fourier Features Let Networks Learn High Frequency Functions in Low
    Dimensional Domains"). The frequencies' lengths are spaced evenly in their logarithm. In the plane their
    angles advance by the golden ratio, so that no range of scales and angles is left out, as a random draw
    would; in other dimensions the directions are random.

    Args:
        features: size D of the input.
        directions: number K of frequencies; the output has `out_features = D + 2 K`.
        lowest: smallest angular frequency, in radians per unit of x.
        highest: largest angular frequency.

    Shape:
        x: (..., D). Output: (..., D + 2 K).

    Example:
        >>> import torch
        >>> from led_fast.nn import FourierFeatures
        >>> FourierFeatures(2, directions=64)(torch.zeros(5, 2)).shape  # x, 64 sines, 64 cosines
        torch.Size([5, 130])
    """

    projection: Tensor

    def __init__(
        self, features: int, directions: int = 64, lowest: float = 0.5, highest: float = 30.0
    ) -> None:
        super().__init__()
        if not 0 < lowest <= highest:
            raise ValueError(f"FourierFeatures: 0 < lowest <= highest must hold, got {lowest} and {highest}")
        self.out_features = features + 2 * directions
        place = torch.arange(directions) + 0.5
        length = lowest * (highest / lowest) ** (place / directions)
        if features == 2:
            angle = math.pi * (place * _GOLDEN_RATIO % 1)
            direction = torch.stack([angle.cos(), angle.sin()])
        else:
            direction = nn.functional.normalize(torch.randn(features, directions), dim=0)
        self.register_buffer("projection", length * direction)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the features of x, of the projection's dtype, under autocast too: phases want its digits."""
        return fourier_features(x, self.projection)
