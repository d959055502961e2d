"""The staircase: a monotone map of each element, by which few features form many modes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from led_fast.flows.contract import Layer, check_features, check_positive, per_feature, sum_event

_NEWTON_STEPS = 100
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8}  # one more Newton step squares it


class Staircase(Layer):
    """A learned monotone staircase for every feature, `t' = e^c t + Σ_k a_k tanh(b_k (t - c_k))`, a, b > 0.

    Each step of height 2 a_k spreads the mass around c_k and gathers the rest, so that a few features can
    form many separate modes. It has no closed inverse: `inverse` finds it by Newton's method.

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
        check_features("Staircase", t, self.centers.shape[0])
        t = t.movedim(1, -1)
        centers, heights, steepness, slope = self.steps_in_use()
        tanh = torch.tanh(steepness * (t[..., None] - centers))
        out = slope * t + (heights * tanh).sum(-1)
        derivative = slope + (heights * steepness * (1 - tanh.square())).sum(-1)
        return out.movedim(-1, 1), sum_event(derivative.log())

    def inverse(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (t, -Σ log dt'/dt over the features), by Newton's method, which bisects outside its bracket."""
        check_features("Staircase", t, self.centers.shape[0])
        with torch.no_grad():
            start = self._solve(t)
            slope = self._value_and_slope(start)[1]
        # One more Newton step, with a graph: gradients by the implicit function theorem.
        out = start - (self(start)[0] - t) / slope
        return out, -self(out)[1]

    def _solve(self, target: Tensor) -> Tensor:
        _, heights, _, slope = self.steps_in_use()
        reach = per_feature(heights.sum(1), target)
        low, high = ((target + sign * reach) / per_feature(slope, target) for sign in (-1, 1))
        t = 0.5 * (low + high)
        for _ in range(_NEWTON_STEPS):
            value, derivative = self._value_and_slope(t)
            error = value - target
            low, high = torch.where(error < 0, t, low), torch.where(error > 0, t, high)
            newton = t - error / derivative
            step = torch.where((newton >= low) & (newton <= high), newton, 0.5 * (low + high))
            moved = (step - t).abs() > _TOLERANCE[t.dtype] * (1 + t.abs())
            t = step
            if not bool(moved.any()):
                break
        return t

    def _value_and_slope(self, t: Tensor) -> tuple[Tensor, Tensor]:
        centers, heights, steepness, slope = self.steps_in_use()
        last = t.movedim(1, -1)
        tanh, derivative, _ = staircase_derivatives(last, centers, heights, steepness, slope)
        value = (heights * tanh).sum(-1) + slope * last
        return value.movedim(-1, 1), derivative.movedim(-1, 1)

    def forward_with_score(self, t: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Layer`: the Jacobian is diagonal."""
        out, ladj = self(t)
        with torch.no_grad():
            _, first, second = staircase_derivatives(t.movedim(1, -1), *self.steps_in_use())
            first, second = first.movedim(-1, 1), second.movedim(-1, 1)
            return out, ladj, (score - second / first) / first

    def steps_in_use(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Centers, heights and steepnesses (F, K), slopes (F,)."""
        log_steepness, most = self.log_steepness, self.MAX_LOG_STEEPNESS
        # Not clamp, because versions of torch differ in its gradient at the bound itself.
        steepness = torch.where(log_steepness > most, most, log_steepness).exp()
        return self.centers, self.log_heights.exp(), steepness, self.log_slope.exp()


def staircase_derivatives(
    t: Tensor, centers: Tensor, heights: Tensor, steepness: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns tanh(b (t - c)), (..., F, K), and the staircase's first and second derivative, (..., F)."""
    tanh = torch.tanh(steepness * (t[..., None] - centers))
    derivatives = heights * steepness * (1 - tanh.square())
    return tanh, slope + derivatives.sum(-1), -2 * (steepness * derivatives * tanh).sum(-1)
