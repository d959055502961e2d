"""Values moved about within samples, by one gather on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from led_fast.ops._autograd import is_plain
from led_fast.ops.backend import reference_in_use

_KEPT = 64  # shapes of values and moves of them, whose orders are kept


def rearranged(move: Callable[..., Tensor], t: Tensor, *arguments: Any) -> Tensor:
    """`move(t, *arguments)`, where that only moves values about, in every sample alike.

    Views with many dimensions say where values go, but copying them takes a CPU far longer than a gather.

    Args:
        move: a function of a module: (B, ...) -> (B, ...), of any dtype.
        t: (B, ...).
        *arguments: hashable.

    Returns:
        A contiguous tensor; where nothing moves, it may be t.
    """
    if t.device.type != "cpu" or reference_in_use() or not is_plain(t):
        return move(t, *arguments).contiguous()
    order, shape = order_of(move, t.shape[1:], *arguments)
    return _Gather.apply(t, order, _inverse_of(move, t.shape[1:], *arguments), shape)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(t: Tensor, order: Tensor, inverse: Tensor, shape: torch.Size) -> Tensor:
        out = t.new_empty(len(t), *shape)  # no view of another tensor: the caller may change it in place
        torch.index_select(t.flatten(1), 1, order, out=out.flatten(1))
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        t, ctx.order, ctx.inverse, _ = inputs
        ctx.shape = t.shape[1:]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        if is_plain(grad):
            return _Gather.apply(grad, ctx.inverse, ctx.order, ctx.shape), None, None, None
        rows = grad.reshape(len(grad), len(ctx.order)).index_select(1, ctx.inverse)
        return rows.reshape(len(grad), *ctx.shape), None, None, None


@lru_cache(_KEPT)
def order_of(move: Callable[..., Tensor], shape: torch.Size, *arguments: Any) -> tuple[Tensor, torch.Size]:
    """Where each value comes from, and the shape that they take."""
    with torch.inference_mode(False):  # because it is kept
        moved = move(torch.arange(shape.numel(), device="cpu").view(1, *shape), *arguments)
        return moved.flatten(), moved.shape[1:]


@lru_cache(_KEPT)
def _inverse_of(move: Callable[..., Tensor], shape: torch.Size, *arguments: Any) -> Tensor:
    """Where each value goes."""
    with torch.inference_mode(False):
        return order_of(move, shape, *arguments)[0].argsort()
