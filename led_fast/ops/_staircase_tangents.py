"""Forward-mode derivatives of the staircase, its inverse and their gradients, by differentiable PyTorch.

The letters are those of csrc/staircase/math.h; a `d` in front is a tangent. Features come last and steps after them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

Parameters = Sequence[Tensor]


class _Steps:
    """Everything about the steps at x, and how it moves."""

    def __init__(self, x: Tensor, dx: Tensor, parameters: Parameters, moves: Parameters) -> None:
        self.x, self.dx = x.movedim(1, -1), dx.movedim(1, -1)
        (c, self.a, self.b, self.m), (dc, self.da, self.db, self.dm) = parameters, moves
        self.w, self.dw = self.x[..., None] - c, self.dx[..., None] - dc
        u = self.b * self.w
        self.t = u.tanh()
        self.s = 4 * (2 * u).sigmoid() * (-2 * u).sigmoid()  # 1 - t² would have no digits left beside a step
        du = self.db * self.w + self.b * self.dw
        self.dt = self.s * du
        self.ds = -2 * self.t * self.dt
        self.weight, self.dweight = self.a * self.b, self.da * self.b + self.a * self.db
        self.slope = self.m + (self.weight * self.s).sum(-1)
        self.dslope = self.dm + (self.dweight * self.s + self.weight * self.ds).sum(-1)

    def dvalue(self) -> Tensor:
        rise = (self.da * self.t + self.a * self.dt).sum(-1)
        return self.dm * self.x + self.m * self.dx + rise

    def bend(self) -> tuple[Tensor, Tensor]:
        """d²y/dx² and its tangent."""
        k, dk = self.weight * self.b, self.dweight * self.b + self.weight * self.db
        st, dst = self.s * self.t, self.ds * self.t + self.s * self.dt
        return -2 * (k * st).sum(-1), -2 * (dk * st + k * dst).sum(-1)

    def dgradients(self, g: Tensor, dg: Tensor, h: Tensor, dh: Tensor) -> tuple[Tensor, ...]:
        """Tangents of the gradients to x, c, a, b, m, where g and h are the cotangents of value and slope."""
        of_x = self.dm * g + self.m * dg
        of_m = self.dx * g + self.x * dg + dh
        g, dg, h, dh = (v[..., None] for v in (g, dg, h, dh))
        bht = self.b * h * self.t
        dbht = self.db * h * self.t + self.b * (dh * self.t + h * self.dt)
        q = self.s * (g - 2 * bht)
        dq = self.ds * (g - 2 * bht) + self.s * (dg - 2 * dbht)
        pull = self.dweight * q + self.weight * dq
        of_a = self.dt * g + self.t * dg + (self.db * h + self.b * dh) * self.s + self.b * h * self.ds
        moment = self.dw * q + self.w * dq + self.ds * h + self.s * dh
        of_b = self.da * (self.w * q + self.s * h) + self.a * moment
        sums = (_over_batch(v, 2) for v in (-pull, of_a, of_b))
        return (of_x + pull.sum(-1)).movedim(-1, 1), *sums, _over_batch(of_m, 1)


def _over_batch(v: Tensor, kept: int) -> Tensor:
    return v.flatten(0, v.dim() - kept - 1).sum(0)


def _per_sample(v: Tensor) -> Tensor:
    return v.flatten(1).sum(1)


def _spread(v: Tensor, like: Tensor) -> Tensor:
    return v.view(-1, *[1] * (like.dim() - 1))


def of_staircase(x: Tensor, parameters: Parameters, dx: Tensor, moves: Parameters) -> tuple[Tensor, Tensor]:
    """Tangents of y and log_abs_det."""
    steps = _Steps(x, dx, parameters, moves)
    return steps.dvalue().movedim(-1, 1), _per_sample(steps.dslope / steps.slope)


def of_inverse(x: Tensor, parameters: Parameters, dy: Tensor, moves: Parameters) -> tuple[Tensor, Tensor]:
    """Tangents of x and of minus log_abs_det, where x is what was found."""
    still = _Steps(x, torch.zeros_like(x), parameters, moves)
    dx = ((dy.movedim(1, -1) - still.dvalue()) / still.slope).movedim(-1, 1)
    return dx, -of_staircase(x, parameters, dx, moves)[1]


def of_gradient(inputs: Sequence[Tensor], tangents: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Tangents of the gradients to x and the parameters."""
    (x, *parameters, g, log), (dx, *moves, dg, dlog) = inputs, tangents
    steps = _Steps(x, dx, parameters, moves)
    log, dlog = _spread(log, steps.x), _spread(dlog, steps.x)
    h = log / steps.slope
    dh = (dlog - h * steps.dslope) / steps.slope
    return steps.dgradients(g.movedim(1, -1), dg.movedim(1, -1), h, dh)


def of_inverse_gradient(inputs: Sequence[Tensor], tangents: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Tangents of the gradients to y and the parameters, where the first input is x, which was found."""
    (x, *parameters, g, log), (dx, *moves, dg, dlog) = inputs, tangents
    steps = _Steps(x, dx, parameters, moves)
    log, dlog = _spread(log, steps.x), _spread(dlog, steps.x)
    h = -log / steps.slope
    dh = -(dlog + h * steps.dslope) / steps.slope
    bend, dbend = steps.bend()
    of_y = (g.movedim(1, -1) + h * bend) / steps.slope
    dof_y = (dg.movedim(1, -1) + dh * bend + h * dbend - of_y * steps.dslope) / steps.slope
    return dof_y.movedim(-1, 1), *steps.dgradients(-of_y, -dof_y, h, dh)[1:]
