"""soft-ReLU and its inverse with parameters per feature, by slope ratio and sharpness of the bend."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from led_fast import reference
from led_fast.ops._autograd import differentiable, not_differentiable
from led_fast.ops._checks import as_number, check_floating
from led_fast.ops._sample_sums import (
    along_samples,
    derivatives_by_autograd,
    derivatives_by_gradient,
    log_dtype,
    per_sample_sum,
    sample_dense_format,
)
from led_fast.ops._vmap import one_by_one
from led_fast.ops.backend import reference_in_use
from led_fast.ops.blocks import Elementwise

_op = torch.ops.led_fast.soft_relu_per_feature.default
_backward_op = torch.ops.led_fast.soft_relu_per_feature_backward.default
Parameter = float | Tensor


def of_slopes(
    x: Tensor, ratio: Tensor, sharpness: Tensor, u0: Tensor, t0: Tensor, inverse: bool = False
) -> tuple[Tensor, Tensor]:
    """`L(x) = ratio v + (1 - ratio) log(1 + exp(sharpness v)) / sharpness - t0`, `v = x - u0`, or its inverse.

    soft-ReLU for `ratio < 1`; its mirror image for `ratio > 1`; the identity, shifted, for `ratio = 1`.

    Args:
        x: Shape (B, F, ...).
        ratio: Positive slope at -inf, while that at +inf is 1; shape (F,), as all parameters. They are taken as float64
            where one of them or x is, else as float32.
        sharpness: Positive.
        u0: Position of the bend.
        t0: Shift of the output.
        inverse: Whether to apply the inverse map.

    Returns:
        The value, like `x`, and the log-determinant of the map that was applied, of shape (B,). Differentiable in
        all tensors, any number of times. The values of the parameters are not checked, because that would wait for
        a GPU: where a ratio or a sharpness is not positive, value and log-determinant are NaN.
    """
    ratio, sharpness, u0, t0 = _of_one_dtype(x, ratio, sharpness, u0, t0)
    if reference_in_use():
        return reference.soft_relu_per_feature(x, ratio, sharpness, u0, t0, inverse)
    return _apply(x, ratio, sharpness, u0, t0, inverse)


def derivatives_of_slopes(
    x: Tensor, ratio: Tensor, sharpness: Tensor, u0: Tensor, t0: Tensor
) -> tuple[Tensor, Tensor]:
    """`dL/dx` and the gradient of the log-determinant of :func:`of_slopes` at x, each like x, detached."""
    ratio, sharpness, u0, t0 = _of_one_dtype(x, *(p.detach() for p in (ratio, sharpness, u0, t0)))
    if reference_in_use():
        return derivatives_by_autograd(
            lambda v: reference.soft_relu_per_feature(v, ratio, sharpness, u0, t0), x
        )
    return derivatives_by_gradient(lambda *inputs: _gradient(*inputs, ratio, sharpness, u0, t0, False)[0], x)


def _of_one_dtype(x: Tensor, *parameters: Tensor) -> list[Tensor]:
    """float64 where x or a parameter is, else float32."""
    wide = any(v.dtype == torch.float64 for v in (x, *parameters))
    dtype = torch.float64 if wide else torch.float32
    return [p if p.dtype == dtype else p.to(dtype) for p in parameters]


def of_bends(
    op: str,
    name: str,
    x: Tensor,
    alpha: Parameter,
    beta: Parameter,
    u0: Parameter,
    t0: Parameter | None,
    inverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """The same by alpha and beta, some of the parameters being tensors of shape (F,).

    In float64, because `1 - beta / alpha` loses digits where the two are close.

    Args:
        op: The operator's name in errors.
        name: That of x.
    """
    if x.dim() < 2:
        raise ValueError(
            f"{op}: {name} must have shape (B, F, ...) for parameters of shape (F,), got {tuple(x.shape)}"
        )
    alpha, beta, u0 = (
        _prepared(op, label, value, x) for label, value in (("alpha", alpha), ("beta", beta), ("u0", u0))
    )
    if isinstance(alpha, float) and isinstance(beta, float) and not alpha > beta:
        raise ValueError(
            f"{op}: alpha and beta must satisfy alpha > beta > 0, got alpha={alpha}, beta={beta}"
        )
    t0 = math.log(2) / alpha if t0 is None else _prepared(op, "t0", t0, x)

    def vector(value: Parameter) -> Tensor:
        if isinstance(value, Tensor):
            return value
        return torch.full(x.shape[1:2], value, dtype=torch.float64, device=x.device)

    return of_slopes(x, vector(beta / alpha), vector(alpha - beta), vector(u0), vector(t0), inverse)


def _prepared(op: str, label: str, value: Any, x: Tensor) -> Parameter:
    """A vector in float64, or a number that is checked."""
    if isinstance(value, Tensor) and value.dim() > 0:
        check_floating(op, label, value)
        if value.shape != x.shape[1:2] or value.device != x.device:
            raise ValueError(
                f"{op}: {label} must be a number or have shape ({x.shape[1]},) on {x.device}, got "
                f"{tuple(value.shape)} on {value.device}"
            )
        return value.double()
    number = as_number(op, label, value)
    if not math.isfinite(number) or (label in ("alpha", "beta") and number <= 0):
        wanted = "positive and finite" if label in ("alpha", "beta") else "finite"
        raise ValueError(f"{op}: {label} must be {wanted}, got {number}")
    return number


def _along_features(x: Tensor, p: Tensor) -> Tensor:
    return p.view(-1, *[1] * (x.dim() - 2))


class _Derivatives:
    """Of L and log L' at x, in differentiable PyTorch: wrt x, ratio and sharpness. Those wrt u0 are minus x's."""

    def __init__(self, x: Tensor, ratio: Tensor, sharpness: Tensor, u0: Tensor) -> None:
        r, k, v = _along_features(x, ratio), _along_features(x, sharpness), x - _along_features(x, u0)
        sigma, other = torch.sigmoid(k * v), torch.sigmoid(-k * v)
        softplus = -torch.nn.functional.logsigmoid(-k * v) / k
        self.slope = r + (1 - r) * sigma
        self.by_ratio, self.by_sharpness = v - softplus, (1 - r) * (v * sigma - softplus) / k
        bend = (1 - r) * sigma * other / self.slope
        self.log_slope, self.log_by_ratio, self.log_by_sharpness = k * bend, other / self.slope, v * bend


def _at_solution(x: Tensor, parameters: tuple[Tensor, ...], inverse: bool) -> _Derivatives:
    x = x.to(log_dtype(x))
    return _Derivatives(_apply(x, *parameters, True)[0] if inverse else x, *parameters[:3])


def _plain_gradient(inverse: bool) -> Callable[..., tuple[Tensor, Tensor]]:
    """The gradient's formulas in differentiable PyTorch."""

    def gradient(x: Tensor, grad_y: Tensor, grad_log: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        at = _at_solution(x, parameters, inverse)
        g = grad_y.to(grad_log.dtype)
        log = along_samples(grad_log, x).expand_as(g)
        grad_x = (g - log * at.log_slope) / at.slope if inverse else g * at.slope + log * at.log_slope
        if inverse:
            by_u0, by_t0, g, log = g, grad_x, -grad_x, -log
        else:
            by_u0, by_t0 = -grad_x, -g
        by_ratio = g * at.by_ratio + log * at.log_by_ratio
        by_sharpness = g * at.by_sharpness + log * at.log_by_sharpness
        sums = [v.transpose(0, 1).flatten(1).sum(1) for v in (by_ratio, by_sharpness, by_u0, by_t0)]
        return grad_x.to(x.dtype), torch.stack(sums)

    return gradient


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, ctx.inverse = inputs
    ctx.save_for_backward(*tensors)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_y: Tensor | None, grad_log: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad_y is None and grad_log is None:
        return (None,) * 6
    x, *parameters = ctx.saved_tensors
    grad_x, grads = _gradient(x, grad_y, grad_log, *parameters, ctx.inverse)
    return grad_x, *grads.unbind(), None


def _jvp(inputs: Any, output: Any, tangents: Any) -> tuple[Tensor, Tensor]:
    x, *parameters, inverse = inputs
    at = _at_solution(x, tuple(parameters), inverse)
    zeros = torch.zeros_like(at.slope)
    moved = zeros if tangents[0] is None else tangents[0].to(zeros.dtype)
    ratio, sharpness, u0, t0 = (zeros if t is None else _along_features(x, t) + zeros for t in tangents[1:5])
    shape = at.by_ratio * ratio + at.by_sharpness * sharpness
    log_shape = at.log_by_ratio * ratio + at.log_by_sharpness * sharpness
    if inverse:
        relative = (moved - shape + t0) / at.slope  # of x - u0
        value, logs = relative + u0, -(at.log_slope * relative + log_shape)
    else:
        value, logs = at.slope * (moved - u0) + shape - t0, at.log_slope * (moved - u0) + log_shape
    return value.to(x.dtype), per_sample_sum(logs).to(output[1].dtype)


def _with_zeros(x: Tensor, grad_y: Tensor | None, grad_log: Tensor | None) -> tuple[Tensor, Tensor]:
    return (
        torch.zeros_like(x) if grad_y is None else grad_y,
        x.new_zeros(len(x), dtype=log_dtype(x)) if grad_log is None else grad_log,
    )


def _double_backward(
    ctx: Any, grad_grad_x: Tensor | None, grad_grads: Tensor | None
) -> tuple[Tensor | None, ...]:
    if grad_grad_x is None and grad_grads is None:
        return (None,) * 8
    x, grad_y, grad_log, *parameters = ctx.saved_tensors
    outputs, pull, *_ = torch.func.vjp(
        _plain_gradient(ctx.inverse), x, *_with_zeros(x, grad_y, grad_log), *parameters
    )
    given = zip((grad_grad_x, grad_grads), outputs, strict=True)
    by_x, by_y, by_log, *by_parameters = pull(
        tuple(torch.zeros_like(o) if g is None else g for g, o in given)
    )
    return (
        by_x,
        None if grad_y is None else by_y,
        None if grad_log is None else by_log,
        *by_parameters,
        None,
    )


def _jvp_of_gradient(inputs: Any, output: Any, tangents: Any) -> tuple[Tensor | None, ...]:
    x, grad_y, grad_log, *parameters, inverse = inputs
    primals = (x, *_with_zeros(x, grad_y, grad_log), *parameters)
    moved = (
        p if t is None else forward_ad.make_dual(p, t) for p, t in zip(primals, tangents[:-1], strict=True)
    )
    return tuple(forward_ad.unpack_dual(o).tangent for o in _plain_gradient(inverse)(*moved))


_apply = differentiable(_op, _backward, _setup, _jvp)
_gradient = differentiable(_backward_op, _double_backward, _setup, _jvp_of_gradient)


@torch.library.register_fake(_op.name())
def _fake(x: Tensor, *parameters: Any) -> tuple[Tensor, Tensor]:
    y = torch.empty_like(x, memory_format=sample_dense_format(x))
    return y, x.new_empty(x.shape[0], dtype=log_dtype(x))


@torch.library.register_fake(_backward_op.name())
def _fake_backward(x: Tensor, grad_y: Any, grad_log: Any, ratio: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    grad_x = torch.empty_like(x, memory_format=sample_dense_format(x))
    return grad_x, ratio.new_empty((4, x.shape[1]))


# Sums over a feature are those of each mapped call.
torch.library.register_vmap(_op.name(), partial(one_by_one, _op))
torch.library.register_vmap(_backward_op.name(), partial(one_by_one, _backward_op))


# ---- as a map among linear ones (`led_fast.ops.blocks`) --------------------------------------------------


def _bend(x: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
    return _apply(x, *parameters, False)


def _bend_kernel(x: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
    return _op(x, *parameters, False)


def _bend_gradient_kernel(
    x: Tensor, grad_y: Tensor | None, grad_log: Tensor | None, *parameters: Tensor
) -> tuple[Tensor, ...]:
    grad_x, grads = _backward_op(x, grad_y, grad_log, *parameters, False)
    return grad_x, *grads.unbind()


_score_op = torch.ops.led_fast.soft_relu_per_feature_score.default
not_differentiable(_score_op)
BENDS = Elementwise(_bend, _bend_kernel, _bend_gradient_kernel, _score_op)
