"""Layers that act on each element alone (the soft-ReLU of A.2 is `led_fast.nn.SoftReLU`)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from led_fast.flows.contract import check_features, check_positive, sum_event
from led_fast.flows.score import forward_with_score


class Staircase(nn.Module):
    """A learned monotone staircase for every feature, `t' = e^c t + Σ_k a_k tanh(b_k (t - c_k))`, a, b > 0.

    Each step of height 2 a_k spreads the mass around c_k and gathers the rest, so that a few features can
    form many separate modes. It has no closed inverse, and in a one-way flow needs none.

    Args:
        features: number F of features, each with a staircase of its own.
        steps: number K of steps.

    Shape:
        t: (B, F, ...). Output: the same and ladj (B,).
    """

    MAX_LOG_STEEPNESS = 9.0

    def __init__(self, features: int, steps: int = 8) -> None:
        super().__init__()
        check_positive("Staircase", features=features, steps=steps)
        centers = torch.linspace(-1.8, 1.8, steps) + 0.1 * torch.randn(features, steps)
        self.centers = nn.Parameter(centers)
        self.log_heights = nn.Parameter(torch.full((features, steps), -2.0))
        self.log_steepness = nn.Parameter(torch.full((features, steps), 0.7))
        self.log_slope = nn.Parameter(torch.zeros(features))

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (t', Σ log dt'/dt over the features)."""
        check_features("Staircase", t, len(self.centers))
        t = t.movedim(1, -1)
        centers, heights, steepness, slope = self.steps_in_use()
        tanh = torch.tanh(steepness * (t[..., None] - centers))
        out = slope * t + (heights * tanh).sum(-1)
        derivative = slope + (heights * steepness * (1 - tanh.square())).sum(-1)
        return out.movedim(-1, 1), sum_event(derivative.log())

    def steps_in_use(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Centers, heights and steepnesses (F, K), slopes (F,)."""
        steepness = self.log_steepness.clamp(max=self.MAX_LOG_STEEPNESS).exp()
        return self.centers, self.log_heights.exp(), steepness, self.log_slope.exp()


def staircase_derivatives(
    t: Tensor, centers: Tensor, heights: Tensor, steepness: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns tanh(b (t - c)), (..., F, K), and the staircase's first and second derivative, (..., F)."""
    tanh = torch.tanh(steepness * (t[..., None] - centers))
    derivatives = heights * steepness * (1 - tanh.square())
    return tanh, slope + derivatives.sum(-1), -2 * (steepness * derivatives * tanh).sum(-1)


@forward_with_score.register
def _(layer: Staircase, t: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    out, ladj = layer(t)
    with torch.no_grad():
        _, first, second = staircase_derivatives(t.movedim(1, -1), *layer.steps_in_use())
        first, second = first.movedim(-1, 1), second.movedim(-1, 1)
        return out, ladj, (score - second / first) / first


class Affine(nn.Module):
    """A fixed affine map, `t' = scale t + shift`: into the units of the data, as a flow's last layer.

    Args:
        scale: non-zero, shape of one sample or broadcastable to it.
        shift: the same.

    Shape:
        t: (B, ...). Output: the same and ladj (B,).
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        if not bool((scale != 0).all()):
            raise ValueError("Affine: scale must not hold zeros")
        self.register_buffer("scale", scale.detach().clone())
        self.register_buffer("shift", shift.detach().clone())

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (scale t + shift, Σ log|scale|)."""
        ladj = self.scale.expand(t.shape[1:]).abs().log().sum()
        return self.scale * t + self.shift, ladj.expand(len(t))


@forward_with_score.register
def _(layer: Affine, t: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return *layer(t), score / layer.scale


class Sigmoid(nn.Module):
    """The logistic function, into the box (0, 1) of image data; ladj = Σ log y (1 - y).

    Shape:
        t: (B, ...). Output: the same and ladj (B,).
    """

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (1 / (1 + e^{-t}), Σ log of its derivative)."""
        return t.sigmoid(), sum_event(F.logsigmoid(t) + F.logsigmoid(-t))


@forward_with_score.register
def _(layer: Sigmoid, t: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    out, ladj = layer(t)
    with torch.no_grad():
        # d/dt of log y (1 - y) is 1 - 2y; two sigmoids give y (1 - y) without cancellation in either tail.
        return out, ladj, (score - (1 - 2 * out)) / (out * torch.sigmoid(-t))
