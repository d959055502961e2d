"""The staircase: a monotone map of each element, by which few features form many modes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from led_fast.flows.contract import Layer, check_features, check_positive, next_number
from led_fast.ops.staircase import staircase, staircase_derivatives, staircase_inverse


class Staircase(Layer):
    """A learned monotone staircase for every feature, `t' = e^c t + Σ_k a_k tanh(b_k (t - c_k))`, a, b > 0.

    Each step of height 2 a_k spreads the mass around c_k and gathers the rest, so that a few features can
    form many separate modes. It has no closed inverse, see :func:`led_fast.staircase_inverse`.

    Args:
        features: number F of features, each with a staircase of its own.
        steps: number K of steps.

    Shape:
        t: (B, F, ...). Output: the same and ladj (B,).

    Example:
        >>> import torch
        >>> from led_fast.flows import Staircase
        >>> layer = Staircase(2, steps=4)
        >>> t, ladj = layer(torch.zeros(5, 2))
        >>> torch.allclose(layer.inverse(t)[0], torch.zeros(5, 2), atol=1e-4)
        True
    """

    MAX_LOG_STEEPNESS = 9.0

    def __init__(self, features: int, steps: int = 8) -> None:
        super().__init__()
        check_positive("Staircase", features=features, steps=steps)
        self.features = features
        centers = torch.linspace(-1.8, 1.8, steps) + 0.1 * torch.randn(features, steps)
        self.centers = nn.Parameter(centers)
        self.log_heights = nn.Parameter(torch.full((features, steps), -2.0))
        self.log_steepness = nn.Parameter(torch.full((features, steps), 0.7))
        self.log_slope = nn.Parameter(torch.zeros(features))

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (t', Σ log dt'/dt over the features)."""
        check_features("Staircase", t, self.features)
        return staircase(t, *self.steps_in_use())

    def inverse(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (t, -Σ log dt'/dt over the features)."""
        check_features("Staircase", t, self.features)
        return staircase_inverse(t, *self.steps_in_use())

    def forward_with_score(self, t: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Layer`: the Jacobian is diagonal."""
        check_features("Staircase", t, self.features)
        steps = self.steps_in_use()
        slope, of_ladj = staircase_derivatives(t, *steps)
        return *staircase(t, *steps), (score - of_ladj) / slope

    def steps_in_use(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Centers, heights and steepnesses (F, K), slopes (F,)."""
        return steps_of(*self.learned())

    def learned(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What `steps_of` takes."""
        return self.centers, self.log_heights, self.log_steepness, self.log_slope


def steps_of(
    centers: Tensor, log_heights: Tensor, log_steepness: Tensor, log_slope: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Centers, heights, steepnesses and slopes, as the operator takes them."""
    # Not clamp, because versions of torch differ in its gradient at the bound itself: here it is 1.
    end = next_number(Staircase.MAX_LOG_STEEPNESS, torch.inf, log_steepness.dtype)
    steepness = F.hardtanh(log_steepness, -torch.inf, end).exp()
    return centers, log_heights.exp(), steepness, log_slope.exp()
