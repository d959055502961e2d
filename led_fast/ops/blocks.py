"""Square linear maps and elementwise maps in turn, as one function: value, log-determinant, score and backward.

Its node in autograd's graph stands for some thirty a block, which cost more than what they compute where features are
few.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from led_fast.ops._autograd import is_plain
from led_fast.ops.autocast import without_autocast
from led_fast.ops.determinant import factorised, log_abs_det


class Elementwise(NamedTuple):
    """A map of each element by itself, with parameters of its features.

    Attributes:
        apply: `(t, *parameters) -> (value, log_abs_det)`, of any number of derivatives.
        kernel: the same, below autograd.
        gradient: `(t, grad_value, grad_log, *parameters) -> (grad_t, *grads of the parameters)`, below autograd; either
            gradient may be None.
        carry: `(t, score, *parameters) -> (score - ∇ log_abs_det) / slope`, the score of a density behind the map,
            below autograd and on CPUs alone.
    """

    apply: Callable[..., tuple[Tensor, Tensor]]
    kernel: Callable[..., tuple[Tensor, Tensor]]
    gradient: Callable[..., tuple[Tensor, ...]]
    carry: Callable[..., Tensor]


class Order(NamedTuple):
    """How the maps follow each other.

    Attributes:
        elementwise: what stands between linear maps.
        linear_first: whether the first map is linear.
    """

    elementwise: Elementwise
    linear_first: bool

    def maps(self, count: int) -> Iterator[tuple[bool, int]]:
        """Of each of so many maps: whether it is linear, and its number among those of its kind."""
        for i in range(count):
            yield (i % 2 == 0) == self.linear_first, i // 2


def blocks(
    order: Order,
    t: Tensor,
    score: Tensor | None,
    weights: Tensor,
    biases: Tensor,
    *parameters: Tensor,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Maps t through linear maps `W t + b` and elementwise ones, in turn.

    Args:
        order: of the maps.
        t: Shape (B, D), plain (`is_plain`) and of the weights' dtype, as all that follows.
        score: The gradient of a log density at t, detached; None where it is not wanted.
        weights: W of all linear maps, (L, D, D), D small.
        biases: b, (L, D).
        parameters: of all elementwise maps, (M, ...) each, M = L or one off.

    Returns:
        The value, the log-determinant of all maps together, (B,), and the score there, detached. At a singular W the
        log-determinant is -inf and the score not finite. Differentiable any number of times.
    """
    inputs: Any = (order, t, score, weights, biases, *parameters)
    if torch.is_grad_enabled() and torch._C._any_requires_grad(*inputs):
        return _Blocks.apply(*inputs)
    return _forward(*inputs)[0]


def _forward(
    order: Order,
    t: Tensor,
    score: Tensor | None,
    weights: Tensor,
    biases: Tensor,
    *parameters: Tensor,
) -> tuple[tuple[Tensor, Tensor, Tensor | None], list[Tensor], Tensor]:
    """What `blocks` returns, the input of every map, and the weights' inverses, transposed."""
    with torch._C._AutoDispatchBelowAutograd():
        logs, inverses = factorised(weights)
        ladj = logs.sum().expand(len(t))
        linear = list(zip(weights.mT.unbind(), biases.unbind(), inverses.mT.unbind(), strict=True))
        others = list(zip(*(p.unbind() for p in parameters), strict=True))
        kept = []
        for is_linear, i in order.maps(len(linear) + len(others)):
            kept.append(t)
            if is_linear:
                weight, bias, inverse = linear[i]
                t = torch.addmm(bias, t, weight)
                score = None if score is None else score @ inverse
                continue
            if score is not None:
                score = order.elementwise.carry(t, score, *others[i])
            t, step = order.elementwise.kernel(t, *others[i])
            ladj = ladj + step
    return (t, ladj, score), kept, inverses


def _plain(
    order: Order, t: Tensor, weights: Tensor, biases: Tensor, *parameters: Tensor
) -> tuple[Tensor, Tensor]:
    """Value and log-determinant by functions that differentiate any number of times."""
    ladj = log_abs_det(weights).sum().expand(len(t))
    for is_linear, i in order.maps(len(weights) + len(parameters[0])):
        if is_linear:
            t = torch.addmm(biases[i], t, weights[i].mT)
        else:
            t, step = order.elementwise.apply(t, *(p[i] for p in parameters))
            ladj = ladj + step
    return t, ladj


class _Blocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, order: Order, t: Tensor, score: Tensor | None, *rest: Tensor) -> Any:
        outputs, kept, inverses = _forward(order, t, score, *rest)
        ctx.order, ctx.maps = order, len(kept)
        ctx.save_for_backward(*kept, inverses, *rest)
        ctx.set_materialize_grads(False)
        if outputs[2] is not None:
            ctx.mark_non_differentiable(outputs[2])
        return outputs

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, of_ladj: Tensor | None, of_score: None) -> Any:
        saved = ctx.saved_tensors  # once, because checkpoints take it so
        kept, (inverses, *rest) = saved[: ctx.maps], saved[ctx.maps :]
        if grad is None and of_ladj is None:
            return (None,) * (3 + len(rest))
        grad = torch.zeros_like(kept[0]) if grad is None else grad
        with without_autocast(grad):
            if torch.is_grad_enabled() or not all(is_plain(g) for g in (grad, of_ladj) if g is not None):
                of_t, *of_rest = _pull(ctx.order, kept[0], rest, grad, of_ladj)
            else:
                of_t, of_rest = _backward(ctx.order, kept, inverses, grad, of_ladj, *rest)
        return None, of_t, None, *of_rest


def _pull(
    order: Order, t: Tensor, rest: list[Tensor], grad: Tensor, of_ladj: Tensor | None
) -> tuple[Tensor, ...]:
    """What backward returns, by functions that differentiate any number of times.

    Of these inputs alone: what they depend on themselves is not gone through. A log-determinant that nobody asked for
    is left out, because that of a singular matrix has no gradient.
    """
    if of_ladj is None:
        return torch.func.vjp(lambda *inputs: _plain(order, *inputs)[0], t, *rest)[1](grad)
    return torch.func.vjp(lambda *inputs: _plain(order, *inputs), t, *rest)[1]((grad, of_ladj))


def _backward(
    order: Order,
    kept: tuple[Tensor, ...],
    inverses: Tensor,
    grad: Tensor,
    of_ladj: Tensor | None,
    weights: Tensor,
    biases: Tensor,
    *parameters: Tensor,
) -> tuple[Tensor, list[Tensor]]:
    with torch._C._AutoDispatchBelowAutograd():
        of_weights = torch.zeros_like(weights) if of_ladj is None else of_ladj.sum() * inverses
        of_biases = torch.empty_like(biases)
        of_parameters = [torch.empty_like(p) for p in parameters]
        others = list(zip(*(p.unbind() for p in parameters), strict=True))
        for (is_linear, i), t in zip(reversed(list(order.maps(len(kept)))), reversed(kept), strict=True):
            if is_linear:
                of_weights[i].addmm_(grad.mT, t)
                torch.sum(grad, 0, out=of_biases[i])
                grad = grad @ weights[i]
                continue
            grad, *own = order.elementwise.gradient(t, grad, of_ladj, *others[i])
            for of_all, of_one in zip(of_parameters, own, strict=True):
                of_all[i] = of_one
    return grad, [of_weights, of_biases, *of_parameters]
