"""The linear map W of a linear layer or convolution without bias, its transpose and its weight gradient."""

import torch
from torch import Tensor
from torch.nn import functional as F

Geometry = tuple[list[int], list[int], list[int], int]  # stride, padding, dilation, groups


def apply(x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """`W x`."""
    return x @ weight.T if x.dim() == 2 else F.conv2d(x, weight, None, *geometry)


def transpose(t: Tensor, weight: Tensor, shape: torch.Size, geometry: Geometry) -> Tensor:
    """`Wᵀ t`, of the given shape, which is that of x."""
    if len(shape) == 2:
        return t @ weight
    stride, padding, dilation, groups = geometry
    # The last rows and columns of x that no tap reaches.
    rest = [
        (shape[2 + i] + 2 * padding[i] - dilation[i] * (weight.shape[2 + i] - 1) - 1) % stride[i]
        for i in range(2)
    ]
    return F.conv_transpose2d(t, weight, None, stride, padding, rest, groups, dilation)


def weight_gradient(x: Tensor, weight: Tensor, grad_t: Tensor, geometry: Geometry) -> Tensor:
    """Gradient of `<W x, grad_t>` wrt the weight of a convolution: linear in x and in grad_t."""
    stride, padding, dilation, groups = geometry
    return torch.ops.aten.convolution_backward(
        grad_t, x, weight, None, stride, padding, dilation, False, [0, 0], groups, [False, True, False]
    )[1]


def both_by_unfolding(x: Tensor, weight: Tensor, grad_t: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor]:
    """`W x` and the weight gradient by matrix products: the library rearranges the weight, which few cells of t
    do not repay. For one group.
    """
    stride, padding, dilation, _ = geometry
    patches = (
        F.unfold(x, weight.shape[2:], tuple(dilation), tuple(padding), tuple(stride))
        .transpose(0, 1)
        .flatten(1)
    )
    t = (weight.flatten(1) @ patches).unflatten(1, (x.shape[0], -1)).transpose(0, 1).reshape(grad_t.shape)
    return t, (grad_t.flatten(2).transpose(0, 1).flatten(1) @ patches.T).reshape(weight.shape)
