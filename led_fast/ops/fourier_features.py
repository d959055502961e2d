"""Sines and cosines of projections of all scales, in one pass."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from led_fast import reference
from led_fast.ops._autograd import differentiable, graph_wanted, in_transform
from led_fast.ops._checks import check_floating
from led_fast.ops._vmap import one_by_one
from led_fast.ops.autocast import without_autocast
from led_fast.ops.backend import reference_in_use

_op = torch.ops.led_fast.fourier_features.default
_backward_op = torch.ops.led_fast.fourier_features_backward.default


def fourier_features(x: Tensor, projection: Tensor) -> Tensor:
    """`[x, sin(x P), cos(x P)]`, of a small D: phases, sines and cosines in one pass over memory.

    Sine and cosine share one reduction of the phase and are off by less than the dtype's eps, for phases of any size
    (csrc/fourier_features/math.h). The gradient to x takes one pass over the result, without them.

    Args:
        x: Shape (..., D), any strides; float64, float32, bfloat16 or float16. Taken in the projection's dtype.
        projection: P, shape (D, K), in radians per unit of x.

    Returns:
        Shape (..., D + 2 K), contiguous, of the projection's dtype; under autocast, too. Half precisions are computed
        in float32. Sine and cosine of an infinite phase are NaN. Differentiable any number of times in both.

    Raises:
        TypeError: An argument is no tensor.
        ValueError: A dtype is not of floating point, or shapes or devices do not agree.

    Example:
        >>> import math, torch, led_fast
        >>> led_fast.fourier_features(torch.tensor([[0.5]]), torch.tensor([[math.pi, 2 * math.pi]]))
        tensor([[ 5.0000e-01,  1.0000e+00, -8.7423e-08, -4.3711e-08, -1.0000e+00]])
    """
    check_floating("fourier_features", "x", x)
    check_floating("fourier_features", "projection", projection)
    if projection.dim() != 2:
        raise ValueError(
            f"fourier_features: projection must have shape (D, K), got {tuple(projection.shape)}"
        )
    if x.dim() == 0 or x.shape[-1] != projection.shape[0]:
        wanted = f"(..., {projection.shape[0]})"
        raise ValueError(f"fourier_features: x must have shape {wanted}, got {tuple(x.shape)}")
    if x.device != projection.device:
        raise ValueError(
            f"fourier_features: projection must be on x's device {x.device}, got {projection.device}"
        )
    if x.dtype != projection.dtype:
        x = x.to(projection.dtype)
    if reference_in_use():
        with without_autocast(x):
            return reference.fourier_features(x, projection)
    return _apply(x, projection)


def _product(a: Tensor, b: Tensor) -> Tensor:
    with without_autocast(a):
        return a @ b


def _sum_of_products(a: Tensor, b: Tensor) -> Tensor:
    """(..., M) and (..., N) to (M, N)."""
    rows = math.prod(a.shape[:-1])
    return _product(a.reshape(rows, a.shape[-1]).mT, b.reshape(rows, b.shape[-1]))


def _parts(features: Tensor, projection: Tensor) -> tuple[Tensor, ...]:
    """x, sines and cosines, or what belongs to them."""
    dimension, directions = projection.shape
    return features.split([dimension, directions, directions], dim=-1)


def _of_phases(grad: Tensor, features: Tensor, projection: Tensor) -> Tensor:
    _, grad_sines, grad_cosines = _parts(grad, projection)
    _, sines, cosines = _parts(features, projection)
    return grad_sines * cosines - grad_cosines * sines


@torch.library.register_fake(_op.name())
def _fake(x: Tensor, projection: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:-1], x.shape[-1] + 2 * projection.shape[1])


@torch.library.register_fake(_backward_op.name())
def _fake_backward(grad: Tensor, features: Tensor, projection: Tensor) -> Tensor:
    return grad.new_empty(*grad.shape[:-1], projection.shape[0])


def _setup(ctx: Any, inputs: Any, output: Tensor) -> None:
    ctx.save_for_backward(*inputs)
    # Not by save_for_backward, by which a result that is changed in place would have no gradient any more. Hooks, such
    # as of checkpoints, would not learn of it.
    hooked = torch._C._autograd._top_saved_tensors_default_hooks(True) is not None
    kept = not (in_transform() or hooked)
    ctx.features, ctx.version = (output.detach(), output._version) if kept else (None, 0)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
    x, projection = ctx.saved_tensors
    features, ctx.features = ctx.features, None  # as saved tensors are freed
    if features is None or features._version != ctx.version or graph_wanted():
        features = _apply(x, projection)
    grad_x = grad_projection = None
    if ctx.needs_input_grad[0]:
        grad_x = _gradient(grad, features, projection)
    if ctx.needs_input_grad[1]:
        grad_projection = _sum_of_products(x, _of_phases(grad, features, projection))
    return grad_x, grad_projection


def _jvp(inputs: Any, output: Tensor, tangents: Any) -> Tensor:
    x, projection = inputs
    of_x, of_projection = tangents
    _, sines, cosines = _parts(output, projection)
    of_phases = 0 if of_x is None else _product(of_x, projection)
    if of_projection is not None:
        of_phases = of_phases + _product(x, of_projection)
    of_x = torch.zeros_like(x) if of_x is None else of_x
    return torch.cat([of_x, of_phases * cosines, -of_phases * sines], dim=-1)


_apply = differentiable(_op, _backward, _setup, _jvp)


# The gradient to x, g_x + (g_sin cos - g_cos sin) Pᵀ, is linear in each of its arguments.


def _setup_of_gradient(ctx: Any, inputs: Any, output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward_of_gradient(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
    grad, features, projection = ctx.saved_tensors
    of_phases = _product(v, projection)
    _, sines, cosines = _parts(features, projection)
    _, grad_sines, grad_cosines = _parts(grad, projection)
    to_grad = to_features = to_projection = None
    if ctx.needs_input_grad[0]:
        to_grad = torch.cat([v, of_phases * cosines, -of_phases * sines], dim=-1)
    if ctx.needs_input_grad[1]:
        to_features = torch.cat(
            [torch.zeros_like(v), -of_phases * grad_cosines, of_phases * grad_sines], dim=-1
        )
    if ctx.needs_input_grad[2]:
        to_projection = _sum_of_products(v, _of_phases(grad, features, projection))
    return to_grad, to_features, to_projection


def _jvp_of_gradient(inputs: Any, output: Tensor, tangents: Any) -> Tensor:
    grad, features, projection = inputs
    of_grad, of_features, of_projection = tangents
    moved = torch.zeros_like(output)
    if of_grad is not None:
        moved = moved + _gradient(of_grad, features, projection)
    if of_features is not None:
        moved = moved + _product(_of_phases(grad, of_features, projection), projection.mT)
    if of_projection is not None:
        moved = moved + _product(_of_phases(grad, features, projection), of_projection.mT)
    return moved


_gradient = differentiable(_backward_op, _backward_of_gradient, _setup_of_gradient, _jvp_of_gradient)


def _rows_of_all_calls(op: Any) -> Callable:
    """A rule by which rows of all calls go into one where the calls share their projection; else a loop."""

    def rule(info: Any, in_dims: Any, *args: Tensor) -> tuple[Tensor, int]:
        *rows, projection = args
        if in_dims[-1] is not None:
            (output,), _ = one_by_one(lambda *a: (op(*a),), info, in_dims, *args)
            return output, 0
        first = (
            a.expand(info.batch_size, *a.shape) if dim is None else a.movedim(dim, 0)
            for a, dim in zip(rows, in_dims[:-1], strict=True)
        )
        return op(*first, projection), 0

    return rule


torch.library.register_vmap(_op.name(), _rows_of_all_calls(_op))
torch.library.register_vmap(_backward_op.name(), _rows_of_all_calls(_backward_op))
