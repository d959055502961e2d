"""Convolutions with channels last, the layout that suits a CPU, and gradients that are convolutions too.

From or to a few channels, vectors of one pixel's would be idle for the most part. There all values of a block of pixels
are channels of one convolution, which steps from block to block.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from led_fast.ops.rearrange import rearranged

_FEW = 4  # channels; a CPU's vector holds 8 or 16


def is_in_blocks(size: tuple[int, int], k: int, stride: int, padding: int) -> bool:
    """Whether `convolution` takes images (H, W): blocks of pixels must make up its input, or its output."""
    block = _block(stride)
    outs = [n + 2 * padding - k + stride for n in size]  # times the stride
    return (
        0 <= padding < k
        and all(n % block == 0 for n in (*size, *outs))
        and (stride == 1 or k - 2 * padding == stride)
    )


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int = 1, padding: int = 0) -> Tensor:
    """`F.conv2d(x, weight, bias, stride, padding)` on a CPU, differentiable any number of times in reverse mode.

    Args:
        x: (B, C, H, W), for which `is_in_blocks`.
        weight: (O, C, k, k).
        bias: (O,) or None.
        stride: in both directions.
        padding: on all sides.

    Returns:
        (B, O, h, w), contiguous for a few channels, else with channels last.
    """
    return _Convolution.apply(x, weight, bias, stride, padding)


def channels_last(t: Tensor) -> Tensor:
    """t, (N, C, H, W), in the memory format of that name; in its gradient t's own."""
    if t.is_contiguous(memory_format=torch.channels_last):
        return t
    return rearranged(_channels_last, t).permute(0, 3, 1, 2)


def _channels_last(t: Tensor) -> Tensor:
    return t.permute(0, 2, 3, 1)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
        if stride > 1 or len(weight) > _FEW:
            return F.conv2d(channels_last(x), channels_last(weight), bias, stride, padding)
        return _transposed(channels_last(x), _turned(weight), 1, _other(weight, padding), bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        x, weight, _, ctx.stride, ctx.padding = inputs
        ctx.save_for_backward(x, weight)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,) * 5
        (x, weight), stride, padding = ctx.saved_tensors, ctx.stride, ctx.padding
        of_x, of_weight, of_bias, *_ = ctx.needs_input_grad
        grad = channels_last(grad)
        by_x = by_weight = by_bias = None
        if of_x:
            by_x = _by_input(grad, weight, stride, padding)
        if of_weight:
            by_weight = _by_weight(x, grad, weight, stride, padding)
        if of_bias:
            by_bias = grad.sum((0, 2, 3))
        return by_x, by_weight, by_bias, None, None


def _by_input(grad: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    if weight.shape[1] <= _FEW:
        return _transposed(grad, weight, stride, padding)
    if stride == 1:
        return F.conv2d(grad, channels_last(_turned(weight)), None, 1, _other(weight, padding))
    return F.conv_transpose2d(grad, channels_last(weight), None, stride, padding)


def _by_weight(x: Tensor, grad: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    x = channels_last(x)
    if stride == 1 and len(weight) <= _FEW:
        # As the turned kernel's, from grad to x: the same sums, at which PyTorch is not slow.
        return _turned(_sums(grad, x, _turned(weight), 1, _other(weight, padding)))
    return _sums(x, grad, weight, stride, padding)


def _sums(x: Tensor, grad: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    geometry = [stride, stride], [padding, padding], [1, 1], False, [0, 0], 1
    return torch.ops.aten.convolution_backward(grad, x, weight, None, *geometry, [False, True, False])[1]


def _turned(weight: Tensor) -> Tensor:
    """The kernel that takes the outputs of a convolution of stride 1 back to its inputs."""
    return weight.flip(2, 3).transpose(0, 1)


def _other(weight: Tensor, padding: int) -> int:
    """What that kernel's convolution is padded with."""
    return weight.shape[2] - 1 - padding


def _transposed(x: Tensor, weight: Tensor, stride: int, padding: int, bias: Tensor | None = None) -> Tensor:
    """`F.conv_transpose2d(x, weight, bias, stride, padding)` to a few channels, by blocks of pixels.

    Of a block, pixel a in either direction takes tap `a + padding - stride d` of the input that lies d after the
    block's first one.

    Args:
        x: (B, C, h, w).
        weight: (C, O, k, k).
        stride: the size of a block, or 1: two.
        padding: of the convolution that it transposes.
        bias: (O,) or None.

    Returns:
        (B, O, H, W), contiguous.
    """
    block = _block(stride)
    taps, before = _taps(weight.shape[2], stride, padding)
    padded = F.pad(weight, (0, 1, 0, 1))  # a tap that is not there is the zero after the last
    # (C, O, block, D, block, D) -> (block, block, O, C, D, D)
    kernel = padded[:, :, taps][..., taps].permute(2, 4, 1, 0, 3, 5).flatten(0, 2)
    if bias is not None:
        bias = bias.repeat(block * block)
    y = F.conv2d(x, kernel, bias, block // stride, before)
    return rearranged(_from_blocks, y.permute(0, 2, 3, 1), block)


def _from_blocks(y: Tensor, block: int) -> Tensor:
    """(B, h, w, block block O), which is how y lies in memory, to (B, O, block h, block w)."""
    return y.unflatten(3, (block, block, -1)).permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)


def _block(stride: int) -> int:
    return max(stride, 2)


@cache
def _taps(k: int, stride: int, padding: int) -> tuple[Tensor, int]:
    """Tap of every pixel of a block, (block,), at every input it may want, (D,), and how many of these lie before."""
    block = _block(stride)
    first, last = -((k - 1 - padding) // stride), (block - 1 + padding) // stride
    pixels, inputs = torch.arange(block, device="cpu"), torch.arange(first, last + 1, device="cpu")
    taps = pixels[:, None] + padding - stride * inputs
    return taps.where((taps >= 0) & (taps < k), k), -first
