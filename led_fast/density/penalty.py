"""A penalty that keeps a critic smooth around the data."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def squared_gradient(critic: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`‖∇f(x)‖²` of each sample, differentiable in the critic: (B, ...) -> (B,).

    Half its mean over data points is the R1 penalty of Mescheder et al. 2018, "Which Training Methods for
    GANs do actually Converge?".
    """
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return gradient.flatten(1).square().sum(dim=1)
