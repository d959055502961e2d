"""Layers that act on each element alone (the soft-ReLU of A.2 is `led_fast.nn.SoftReLU`)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from led_fast import reference
from led_fast.flows.contract import check_features, check_positive, sum_event
from led_fast.flows.score import forward_with_score
from led_fast.ops import reference_in_use


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
        function = reference.staircase if reference_in_use() else _StaircaseFunction.apply
        out, log_derivative = function(t.movedim(1, -1), *self.steps_in_use())
        return out.movedim(-1, 1), sum_event(log_derivative)

    def steps_in_use(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Centers, heights and steepnesses (F, K), slopes (F,)."""
        steepness = self.log_steepness.clamp(max=self.MAX_LOG_STEEPNESS).exp()
        return self.centers, self.log_heights.exp(), steepness, self.log_slope.exp()


class _StaircaseFunction(torch.autograd.Function):
    """(t, c, a, b, slope) -> (staircase of t, log of its derivative), elementwise on t of shape (..., F).

    Derived by hand because a generator's step on a CPU is bound by the number of small operations: the
    gradients of all parameters are one batched product of (output gradients) x (tanh, sech², tanh·sech²). It
    saves its inputs alone and differentiates through its backward, so second derivatives are right.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        t: Tensor, centers: Tensor, heights: Tensor, steepness: Tensor, slope: Tensor
    ) -> tuple[Tensor, Tensor]:
        tanh = torch.tanh(steepness * (t[..., None] - centers))
        out = (heights * tanh).sum(-1).addcmul_(slope, t)
        derivative = slope + (heights * steepness * (1 - tanh.square())).sum(-1)
        return out, derivative.log_()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor, grad_log: Tensor) -> tuple[Tensor, ...]:
        t, centers, heights, steepness, slope = ctx.saved_tensors
        tanh, derivative, second = staircase_derivatives(t, centers, heights, steepness, slope)
        grad_derivative = grad_log / derivative
        grad_t = grad_out * derivative + grad_derivative * second

        sech2 = 1 - tanh.square()
        outer = torch.stack([grad_out, grad_derivative, grad_out * t, grad_derivative * t], dim=-1)
        inner = torch.cat([tanh, sech2, tanh * sech2], dim=-1)
        moments = outer.flatten(0, -3).permute(1, 2, 0) @ inner.flatten(0, -3).transpose(0, 1)  # (F, 4, 3 K)
        by_out, by_derivative, by_out_t, by_derivative_t = moments.unbind(dim=1)
        k = centers.shape[1]
        out_tanh, out_sech2 = by_out[:, :k], by_out[:, k : 2 * k]
        d_sech2, d_tanh_sech2 = by_derivative[:, k : 2 * k], by_derivative[:, 2 * k :]
        # Σ grad_out (t - c) sech² and Σ grad_derivative (t - c) tanh sech².
        out_offset = by_out_t[:, k : 2 * k] - centers * out_sech2
        d_offset = by_derivative_t[:, 2 * k :] - centers * d_tanh_sech2

        grad_heights = out_tanh + steepness * d_sech2
        grad_steepness = heights * (out_offset + d_sech2 - 2 * steepness * d_offset)
        grad_centers = heights * steepness * (2 * steepness * d_tanh_sech2 - out_sech2)
        grad_slope = (grad_out * t + grad_derivative).flatten(0, -2).sum(0)
        return grad_t, grad_centers, grad_heights, grad_steepness, grad_slope


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
