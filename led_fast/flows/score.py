"""The score of the density, carried through a flow layer by layer.

With `s = ∇ log q(t)` and `t' = g(t)`, differentiating `log q(t') = log q(t) - ladj(t)` gives the score of the
output, `s' = J^{-T} (s - ∇ladj)`. It is what pathwise gradients need (the gradient of a sample's log density
through the sample alone, at fixed density parameters; Roeder et al. 2017, "Sticking the Landing"), and costs
little where J is diagonal or a single matrix. A layer's own rule is registered beside the layer; any other
layer falls back on its full Jacobian.
"""

from __future__ import annotations

from functools import singledispatch

import torch
from torch import Tensor, nn

from led_fast.nn import SoftReLU


@singledispatch
def forward_with_score(layer: nn.Module, t: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Applies a layer to t, and its inverse-transposed Jacobian to the score.

    This fall-back builds each sample's Jacobian by autograd, one output coordinate at a time, and serves any
    layer that keeps the dimension and treats the samples of a batch independently.

    Args:
        layer: keeps the contract of `led_fast.flows.contract`.
        t: value, (B, ...).
        score: gradient of log q at t, same shape, no gradient attached.

    Returns:
        (t', ladj, score'): as `layer(t)`, and the score at t', detached.
    """
    with torch.enable_grad():
        t = t if t.requires_grad else t.detach().requires_grad_()
        out, ladj = layer(t)
        columns = out.flatten(1)
        rows = [_gradient(columns[:, i], t).flatten(1) for i in range(columns.shape[1])]
    jacobian = torch.stack(rows, dim=1)
    pulled = (score - _gradient(ladj, t)).flatten(1)
    return out, ladj, torch.linalg.solve(jacobian.mT, pulled).view_as(out)


def elementwise_with_score(layer: nn.Module, t: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The rule of any layer that acts on each element alone: its Jacobian is its derivative."""
    with torch.enable_grad():
        t = t if t.requires_grad else t.detach().requires_grad_()
        out, ladj = layer(t)
    return out, ladj, (score - _gradient(ladj, t)) / _gradient(out, t)


forward_with_score.register(SoftReLU, elementwise_with_score)


def _gradient(value: Tensor, t: Tensor) -> Tensor:
    """Each sample's gradient of `value` with respect to t, zero where it does not depend on t."""
    if not value.requires_grad:
        return torch.zeros_like(t)
    (gradient,) = torch.autograd.grad(value.sum(), t, retain_graph=True, allow_unused=True)
    return torch.zeros_like(t) if gradient is None else gradient
