"""A convolution from or to a few channels, which vectors of one pixel's channels would leave idle for the most part.

All values of a block of pixels are channels of one convolution instead, which steps from block to block.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

FEW = 4  # channels; a CPU's vector holds 8 or 16


def conv2d_of_few_channels(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    """`F.conv2d(x, weight, bias, stride, padding)` with padding (k - stride) / 2: images of 1 / stride the size.

    Differentiable any number of times.

    Args:
        x: (B, C, H, W); H and W even multiples of the stride, or multiples of one larger than 1.
        weight: (O, C, k, k), C or O at most `FEW`, k - stride even.
        bias: (O,) or None.
        stride: in both directions.

    Returns:
        (B, O, H / stride, W / stride).
    """
    return _Convolution.apply(x, weight, bias, stride)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
        if stride > 1 or len(weight) > FEW:
            return F.conv2d(x, weight, bias, stride, _padding(weight, stride))
        return _transposed(x, _turned(weight), stride, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        x, weight, _, ctx.stride = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, (of_x, of_weight, of_bias, _) = ctx.stride, ctx.needs_input_grad
        grad = grad.contiguous(memory_format=torch.channels_last)
        by_x = by_weight = by_bias = None
        if of_x and x.shape[1] > FEW:
            by_x = F.conv2d(grad, _turned(weight), None, 1, _padding(weight, stride))
        elif of_x:
            by_x = _transposed(grad, weight, stride)
        if of_weight and len(weight) > FEW:
            by_weight = _by_weight(x, grad, weight, stride)
        elif of_weight:  # PyTorch is slow there, but not at the same sums for the turned kernel, from grad to x
            by_weight = _turned(_by_weight(grad, x, _turned(weight), stride))
        if of_bias:
            by_bias = grad.sum((0, 2, 3))
        return by_x, by_weight, by_bias, None


def _padding(weight: Tensor, stride: int) -> int:
    return (weight.shape[2] - stride) // 2


def _turned(weight: Tensor) -> Tensor:
    """The kernel that takes the outputs of a convolution of stride 1 back to its inputs."""
    return weight.flip(2, 3).transpose(0, 1)


def _by_weight(x: Tensor, grad: Tensor, weight: Tensor, stride: int) -> Tensor:
    p, mask = _padding(weight, stride), [False, True, False]
    geometry = [stride, stride], [p, p], [1, 1], False, [0, 0], 1
    return torch.ops.aten.convolution_backward(grad, x, weight, None, *geometry, mask)[1]


def _transposed(x: Tensor, weight: Tensor, stride: int, bias: Tensor | None = None) -> Tensor:
    """`F.conv_transpose2d(x, weight, bias, stride, padding)` to a few channels, by blocks of pixels.

    Of a block, pixel a in either direction takes tap `a + padding - stride d` of the input that lies d after the
    block's first one.

    Args:
        x: (B, C, H, W), both even at stride 1.
        weight: (C, O, k, k).
        stride: the size of a block, or 1: two.
        bias: (O,) or None.

    Returns:
        (B, O, stride H, stride W), contiguous.
    """
    outs, block = weight.shape[1], max(stride, 2)
    taps, before = _taps(weight.shape[2], stride, block)
    padded = F.pad(weight, (0, 1, 0, 1))  # a tap that is not there is the zero after the last
    # (C, O, block, D, block, D) -> (block, block, O, C, D, D)
    kernel = padded[:, :, taps][..., taps].permute(2, 4, 1, 0, 3, 5).flatten(0, 2)
    if bias is not None:
        bias = bias.repeat(block * block)
    y = F.conv2d(x, kernel, bias, block // stride, before)
    return y.unflatten(1, (block, block, outs)).permute(0, 3, 4, 1, 5, 2).contiguous().flatten(4).flatten(2, 3)


@cache
def _taps(k: int, stride: int, block: int) -> tuple[Tensor, int]:
    """Tap of every pixel of a block, (block,), at every input it may want, (D,), and how many of these lie before."""
    padding = (k - stride) // 2
    first, last = -((k - 1 - padding) // stride), (block - 1 + padding) // stride
    taps = torch.arange(block, device="cpu")[:, None] + padding - stride * torch.arange(first, last + 1, device="cpu")
    return taps.where((taps >= 0) & (taps < k), k), -first
