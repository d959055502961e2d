"""A convolution and its transpose on a CPU, each made of those that are fast there, and each the other's gradient.

They want channels last, and enough channels to fill vectors. A few channels would leave them idle for the most part;
there the pixels of a block are made channels of one convolution, whose kernel has the taps of each.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from led_fast.ops._autograd import is_plain
from led_fast.ops.autocast import without_autocast
from led_fast.ops.rearrange import order_of, rearranged

_FEW = 4  # channels; a CPU's vector holds 8 or 16
_BLOCK = 2  # pixels, in either direction
_LARGE = 8  # pixels of an image's side, from which on windows cost less than a transposed convolution


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    """`torch.nn.functional.conv2d(x, weight, bias, stride, padding)`.

    Differentiable any number of times. Like its transpose it is for images whose size it divides by `stride`, which
    `k - 2 padding = stride` says, or for a stride of 1.

    Args:
        x: (B, C, H, W), on the CPU.
        weight: (O, C, k, k).
        bias: (O,) or None.
        stride: a divisor of H and W.
        padding: less than k.

    Returns:
        (B, O, h, w).
    """
    if is_plain(x) and is_plain(weight):
        # Not of a few channels that become fewer values, of which oneDNN has no fast convolution with channels last.
        first = x.shape[1] <= _FEW and len(weight) < x.shape[1] * stride**2
        return _Convolution.apply(x if first else _channels_last(x), weight, bias, stride, padding)
    return F.conv2d(x, weight, bias, stride, padding)


def transposed_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int
) -> Tensor:
    """`torch.nn.functional.conv_transpose2d(x, weight, bias, stride, padding)`; see `convolution`.

    Args:
        x: (B, C, h, w), on the CPU.
        weight: (C, O, k, k).
        bias: (O,) or None.
        stride: in both directions.
        padding: less than k.

    Returns:
        (B, O, H, W).
    """
    if is_plain(x) and is_plain(weight):
        return _Transposed.apply(_channels_last(x), weight, bias, stride, padding)
    return F.conv_transpose2d(x, weight, bias, stride, padding)


def whole_convolution(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`torch.nn.functional.conv2d(x, weight, bias)` of kernels as large as the images, which is a matrix product.

    Args:
        x: (B, C, h, w).
        weight: (O, C, h, w).
        bias: (O,) or None.

    Returns:
        (B, O, 1, 1).
    """
    if not (is_plain(x) and is_plain(weight)):
        return F.conv2d(x, weight, bias)
    images, kernels = (_channels_last(t).permute(0, 2, 3, 1).flatten(1) for t in (x, weight))
    return F.linear(images, kernels, bias)[:, :, None, None]


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
        if stride == 1:
            return _unstrided(x, weight, bias, padding, _as_it_is)
        return F.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        _keep(ctx, *inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        return _gradients(ctx, grad, transposed_convolution)


class _Transposed(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
        if stride == 1:
            return _unstrided(x, weight, bias, weight.shape[2] - 1 - padding, _turned)
        if min(x.shape[2:]) < _LARGE and weight.shape[1] > _FEW:
            return F.conv_transpose2d(x, weight, bias, stride, padding)
        return _by_windows(x, weight, bias, stride, padding)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        _keep(ctx, *inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        return _gradients(ctx, grad, convolution)


def _gradients(ctx: Any, grad: Tensor | None, other: Callable[..., Tensor]) -> tuple[Tensor | None, ...]:
    """To x, weight and bias, of either; `other` is the function that takes its outputs back."""
    if grad is None:
        return (None,) * 5
    (x, weight), (of_x, of_weight, of_bias) = ctx.saved_tensors, _wanted(ctx)
    grad = _channels_last(grad) if is_plain(grad) else grad
    large, small = (grad, x) if other is convolution else (x, grad)
    with without_autocast(grad):
        by_x = other(grad, weight, None, ctx.stride, ctx.padding) if of_x else None
        by_weight = _by_weight(large, small, weight, ctx.stride, ctx.padding) if of_weight else None
        by_bias = grad.sum((0, 2, 3)) if of_bias else None
    return by_x, by_weight, by_bias, None, None


def _keep(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> None:
    ctx.save_for_backward(x, weight)
    ctx.set_materialize_grads(False)
    ctx.stride, ctx.padding = stride, padding


def _wanted(ctx: Any) -> list[bool]:
    """Of which of x, weight and bias this backward pass wants the gradient; `ctx.needs_input_grad` is for any pass."""
    return [
        needed and _is_reached(ctx.next_functions[i][0]) for i, needed in enumerate(ctx.needs_input_grad[:3])
    ]


def _is_reached(node: Any) -> bool:
    try:
        return torch._C._will_engine_execute_node(node)
    except RuntimeError:  # a leaf, of which torch.autograd.grad was asked for the gradient
        return True


def _by_weight(x: Tensor, grad: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """The gradient of a convolution from x to `grad` by its kernel."""
    if not (is_plain(x) and is_plain(grad)):
        return _sums(x, grad, weight, stride, padding)
    if stride > 1 or len(weight) > _FEW:
        return _sums(x, grad, weight, stride, padding)
    # As the turned kernel's, from grad to x: the same sums, at which PyTorch is not slow.
    turned = _turned(weight)
    return _turned(_sums(grad, x, turned, 1, weight.shape[2] - 1 - padding))


def _sums(x: Tensor, grad: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    geometry = [stride, stride], [padding, padding], [1, 1], False, [0, 0], 1
    return torch.ops.aten.convolution_backward(grad, x, weight, None, *geometry, [False, True, False])[1]


# ---- the ways to compute them ----------------------------------------------------------------------------


def _unstrided(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, make: Callable[..., Tensor]
) -> Tensor:
    """A convolution of stride 1 by the kernel `make(weight)`: to a few channels by blocks of pixels."""
    outs, k = weight.shape[make is _turned], weight.shape[2]
    size = [n + 2 * padding - k + 1 for n in x.shape[2:]]
    if outs > _FEW or size[0] % _BLOCK or size[1] % _BLOCK or min(size) < _LARGE:
        kernel = weight if make is _as_it_is else _laid_out(make, weight)
        return F.conv2d(x, kernel, bias, 1, padding)
    if bias is not None:
        bias = bias.repeat(_BLOCK**2)
    y = F.conv2d(x, _laid_out(_of_block, weight, make), bias, _BLOCK, padding)
    return rearranged(_from_blocks, y.permute(0, 2, 3, 1))


def _of_block(weight: Tensor, make: Callable[..., Tensor]) -> Tensor:
    """The kernel of all pixels of a block: (2 2 O, C, k + 1, k + 1)."""
    kernel, pixels = make(weight), range(_BLOCK)
    last = _BLOCK - 1
    return torch.cat([F.pad(kernel, (j, last - j, i, last - i)) for i in pixels for j in pixels])


def _from_blocks(y: Tensor) -> Tensor:
    """(B, h, w, 2 2 O) to (B, O, 2 h, 2 w)."""
    return y.unflatten(3, (_BLOCK, _BLOCK, -1)).permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)


def _by_windows(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    """A transposed convolution by all windows of inputs that some pixel is made of.

    Pixel `stride m + a` is made of the inputs up to number `m + (a + padding) // stride`, by taps a stride apart.
    """
    taps = -(-weight.shape[2] // stride)
    if bias is not None:
        bias = bias.repeat(stride**2)
    y = F.conv2d(x, _laid_out(_of_windows, weight, stride, padding), bias, 1, taps - 1)
    y = y.permute(0, 2, 3, 1)
    order, (height, width, outs) = order_of(_from_windows, y.shape[1:], stride, padding, tuple(x.shape[2:]))
    out = torch.empty(
        (len(x), outs, height, width), dtype=x.dtype, device="cpu", memory_format=torch.channels_last
    )
    torch.index_select(y.flatten(1), 1, order, out=out.permute(0, 2, 3, 1).flatten(1))
    return out


def _of_windows(weight: Tensor, stride: int, padding: int) -> Tensor:
    """The kernel of all `stride stride` pixels: (stride stride O, C, taps, taps)."""
    k = weight.shape[2]
    taps = -(-k // stride)
    padded = F.pad(weight, (0, taps * stride - k) * 2).flip(2, 3)
    first = [(pixel + padding) % stride for pixel in range(stride)]
    rows = [padded[:, :, stride - 1 - i :: stride, stride - 1 - j :: stride] for i in first for j in first]
    return torch.cat(rows, 1).transpose(0, 1)


def _from_windows(y: Tensor, stride: int, padding: int, size: tuple[int, int]) -> Tensor:
    """(B, windows, windows, stride stride O) to (B, H, W, O)."""
    y = y.unflatten(3, (stride, stride, -1))
    (h, w), shifts = size, [(pixel + padding) // stride for pixel in range(stride)]
    rows = [
        torch.stack([y[:, i : i + h, j : j + w, a, b] for b, j in enumerate(shifts)], 3)
        for a, i in enumerate(shifts)
    ]
    return torch.stack(rows, 2).flatten(3, 4).flatten(1, 2)


# ---- layouts ---------------------------------------------------------------------------------------------


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _laid_out(make: Callable[..., Tensor], weight: Tensor, *arguments: Any) -> Tensor:
    """`make(weight, *arguments)`, which only moves values about and puts zeros between them, with channels last."""
    order, shape = _order(make, weight.shape, *arguments)
    return F.pad(weight.flatten(), (1, 0)).index_select(0, order).view(shape).permute(0, 3, 1, 2)


@lru_cache(64)
def _order(make: Callable[..., Tensor], shape: torch.Size, *arguments: Any) -> tuple[Tensor, torch.Size]:
    """Where the values of `make(weight)` are in a weight of this shape, from 1 on; 0 for zeros."""
    with torch.inference_mode(False):  # because it is kept
        places = torch.arange(1, shape.numel() + 1, device="cpu").view(shape)
        made = make(places, *arguments).permute(0, 2, 3, 1)
        return made.flatten(), made.shape


def _as_it_is(weight: Tensor) -> Tensor:
    return weight


def _turned(weight: Tensor) -> Tensor:
    """The kernel that takes the outputs of a convolution of stride 1 back to its inputs."""
    return weight.flip(2, 3).transpose(0, 1)
