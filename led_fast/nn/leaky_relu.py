"""The leaky ReLU, for gradients of gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from led_fast.ops._autograd import is_plain
from led_fast.ops.backend import reference_in_use


class InplaceLeakyReLU(nn.LeakyReLU):
    """:class:`torch.nn.LeakyReLU` that changes its input, and whose second derivative costs nothing.

    The second derivative is 0. PyTorch makes a tensor of zeros of it, and goes back with these through all layers
    before. Here the gradient is None instead, so that nothing goes back. The network must not need its input again.

    Args:
        negative_slope: below 0, positive.

    Shape:
        Any.

    Example:
        >>> import torch
        >>> from led_fast.nn import InplaceLeakyReLU
        >>> InplaceLeakyReLU(0.2)(torch.tensor([-1.0, 1.0]))
        tensor([-0.2000,  1.0000])
    """

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__(negative_slope, inplace=True)

    def forward(self, input: Tensor) -> Tensor:
        """Returns the input, changed."""
        if torch.is_grad_enabled() and input.requires_grad and is_plain(input) and not reference_in_use():
            return _LeakyReLU.apply(input, self.negative_slope)
        return super().forward(input)


class _LeakyReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float) -> Tensor:
        y = F.leaky_relu_(x, slope)
        ctx.mark_dirty(y)
        ctx.save_for_backward(y)
        ctx.set_materialize_grads(False)
        ctx.slope = slope
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, None]:
        if grad is None:
            return None, None
        (y,) = ctx.saved_tensors
        # The signs of y are those of x.
        return torch.ops.aten.leaky_relu_backward(grad, y.detach(), ctx.slope, True), None
