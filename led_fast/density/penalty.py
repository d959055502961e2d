"""A penalty that keeps a critic smooth around the data."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def squared_gradient(critic: Callable[[Tensor], Tensor], x: Tensor, unit: Tensor | float = 1.0) -> Tensor:
    """`‖unit ∇f(x)‖²` of each sample, differentiable in the critic: (B, ...) -> (B,).

    Half its mean over data points is the R1 penalty of Mescheder et al. 2018, "Which Training Methods for
    GANs do actually Converge?".

    Args:
        critic: f, (B, ...) -> (B,).
        x: (B, ...).
        unit: broadcasts to x; the length in each coordinate over which a change of f counts.

    Example:
        >>> import torch
        >>> from led_fast.density import squared_gradient
        >>> squared_gradient(lambda x: 3 * x.sum(1), torch.zeros(2, 2))
        tensor([18., 18.])
    """
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return (unit * gradient).flatten(1).square().sum(dim=1)
