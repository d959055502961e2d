"""Random Fourier features of a low-dimensional input."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class FourierFeatures(nn.Module):
    """Appends sines and cosines of random projections: `x -> [x, sin(x B), cos(x B)]`.

    A perceptron of raw coordinates cannot resolve modes much narrower than their distance; one of these
    features can (Tancik et al. 2020, "Fourier Features Let Networks Learn High Frequency Functions in Low
    Dimensional Domains"). The directions are uniform on the sphere and the angular frequencies log-uniform,
    so that all scales are served.

    Args:
        features: size D of the input.
        directions: number K of projections; the output has `out_features = D + 2 K`.
        lowest: smallest angular frequency, in radians per unit of x.
        highest: largest angular frequency.

    Shape:
        x: (..., D). Output: (..., D + 2 K).
    """

    projection: Tensor

    def __init__(
        self, features: int, directions: int = 64, lowest: float = 0.5, highest: float = 30.0
    ) -> None:
        super().__init__()
        if not 0 < lowest <= highest:
            raise ValueError(f"FourierFeatures: wanted 0 < lowest <= highest, got {lowest} and {highest}")
        self.out_features = features + 2 * directions
        direction = nn.functional.normalize(torch.randn(features, directions), dim=0)
        exponent = torch.empty(directions).uniform_(math.log(lowest), math.log(highest))
        self.register_buffer("projection", direction * exponent.exp())

    def forward(self, x: Tensor) -> Tensor:
        """Returns the features of x."""
        phase = x @ self.projection
        return torch.cat([x, phase.sin(), phase.cos()], dim=-1)
