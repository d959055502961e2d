"""soft-ReLU fused with its log-derivative sum (LED, Eq. 10-11)."""

import math
from typing import Any

import torch
from torch import Tensor

from led_fast import reference
from led_fast.ops import _sample_sums
from led_fast.ops._autograd import differentiable
from led_fast.ops._checks import as_number, check_floating
from led_fast.ops._sample_sums import log_dtype, per_sample_sum
from led_fast.ops.backend import reference_in_use
from led_fast.ops.soft_relu_per_feature import Parameter, of_bends

_forward_op = torch.ops.led_fast.soft_relu.default
_backward_op = torch.ops.led_fast.soft_relu_backward.default


def soft_relu(
    x: Tensor,
    alpha: Parameter = 5.8,
    beta: Parameter = 1.0,
    u0: Parameter = 0.0,
    t0: Parameter | None = None,
) -> tuple[Tensor, Tensor]:
    """The invertible activation of LED, with the log-determinant of its Jacobian, in one pass over memory.

    Elementwise `y = log(exp(alpha (x - u0)) + exp(beta (x - u0))) / alpha - t0` (LED, Eq. 10), whose slope rises
    from `beta / alpha` to 1, and `log_abs_det = Σ log y'(x)` over each sample (Eq. 11).

    Args:
        x: Shape (B, ...), any strides; float64, float32, bfloat16 or float16. B may be 0.
        alpha: Sharpness of the bend; must exceed `beta`. Like the next three a number, or a 0-d tensor that
            requires no gradient, which is read at once; or, for x of shape (B, F, ...), a tensor of shape (F,), which
            gets a gradient and whose values are not checked.
        beta: Positive; `beta / alpha` is the slope for very negative `x`.
        u0: Position of the bend.
        t0: Shift of the output. None means `log(2) / alpha`, for which `y(u0) = 0`.

    Returns:
        `y`, of `x`'s shape and dtype (channels-last stays channels-last, other strides become contiguous), and
        `log_abs_det` in nats, of shape (B,), float64 for float64 inputs and float32 otherwise. Half precisions are
        computed in float32; under autocast `x` keeps its dtype. ±inf give ±inf with the limiting slope, NaN gives NaN
        in its own element and sample only. Differentiable any number of times.

    Raises:
        TypeError: `x` is no tensor, or a parameter is no number or a tensor of which a derivative is wanted.
        ValueError: `x` is not of a floating-point dtype or has no batch dimension, or not `alpha > beta > 0`, or
            a parameter is not finite, or `alpha / beta` exceeds 1e30 (the slope would leave float32's range).
    """
    numbers = as_checked_numbers("soft_relu", "x", x, alpha, beta, u0, t0)
    if numbers is None:
        return of_bends("soft_relu", "x", x, alpha, beta, u0, t0)
    if reference_in_use():
        return reference.soft_relu(x, *numbers)
    return _forward(x, *numbers)


def as_checked_numbers(
    op: str, name: str, x: Tensor, alpha: Parameter, beta: Parameter, u0: Parameter, t0: Parameter | None
) -> tuple[float, float, float, float] | None:
    """The parameters as floats, t0 by its default; None where some are vectors. Raises as :func:`soft_relu` does.

    Args:
        op: The operator's name in errors.
        name: That of x.
    """
    check_floating(op, name, x)
    if x.dim() == 0:
        raise ValueError(f"{op}: {name} must have shape (B, ...), got a 0-d tensor")
    if t0 is None and type(alpha) is float and alpha:
        t0 = math.log(2) / alpha
    if not type(alpha) is type(beta) is type(u0) is type(t0) is float:
        if any(isinstance(p, Tensor) and p.dim() > 0 for p in (alpha, beta, u0, t0)):
            return None
        alpha, beta, u0, t0 = as_numbers(op, alpha, beta, u0, t0)
    check_parameters(op, alpha, beta, u0, t0)  # type: ignore[arg-type]
    return alpha, beta, u0, t0  # type: ignore[return-value]


def as_numbers(
    op: str, alpha: object, beta: object, u0: object, t0: object
) -> tuple[float, float, float, float]:
    """The parameters as floats, t0 by its default where it is None. Raises TypeError where one is no number."""
    alpha, beta, u0 = (
        as_number(op, name, value) for name, value in (("alpha", alpha), ("beta", beta), ("u0", u0))
    )
    if t0 is None:
        return alpha, beta, u0, math.log(2) / alpha if alpha else 0.0
    return alpha, beta, u0, as_number(op, "t0", t0)


def check_parameters(op: str, alpha: float, beta: float, u0: float, t0: float) -> None:
    """Raises ValueError unless alpha > beta > 0 and all parameters are finite and representable in float32."""
    if not alpha > beta > 0:
        raise ValueError(f"{op}: alpha > beta > 0 is required, got alpha={alpha}, beta={beta}")
    if not (alpha < math.inf and abs(u0) < math.inf and abs(t0) < math.inf):
        raise ValueError(f"{op}: parameters must be finite, got alpha={alpha}, u0={u0}, t0={t0}")
    if alpha > 1e30 * beta:
        raise ValueError(f"{op}: alpha / beta must be at most 1e30, got {alpha / beta:g}")


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    x, ctx.alpha, ctx.beta, ctx.u0, _ = inputs
    ctx.save_for_backward(x)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_y: Tensor | None, grad_log: Tensor | None) -> tuple[Tensor | None, ...]:
    grad_x = None
    if grad_y is not None or grad_log is not None:
        (x,) = ctx.saved_tensors
        grad_x = _gradient(x, grad_y, grad_log, ctx.alpha, ctx.beta, ctx.u0)
    return grad_x, None, None, None, None


def _setup_double(ctx: Any, inputs: Any, output: Any) -> None:
    x, grad_y, grad_log, ctx.alpha, ctx.beta, ctx.u0 = inputs
    ctx.save_for_backward(x, grad_y, grad_log)


def _double_backward(ctx: Any, grad_grad: Tensor) -> tuple[Tensor | None, ...]:
    x, grad_y, grad_log = ctx.saved_tensors
    slope, first, ratio = _slope_of_gradient(x, grad_y, grad_log, ctx.alpha, ctx.beta, ctx.u0)
    grad_grad_y = None if grad_y is None else (grad_grad * first).to(grad_y.dtype)
    grad_grad_log = None if grad_log is None else per_sample_sum(grad_grad * ratio).to(grad_log.dtype)
    return (grad_grad * slope).to(x.dtype), grad_grad_y, grad_grad_log, None, None, None


def _slope_of_gradient(
    x: Tensor, grad_y: Tensor | None, grad_log: Tensor | None, alpha: float, beta: float, u0: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`d grad_x / dx` of grad_x = grad_y L' + grad_log L''/L', then L' and L''/L'. Differentiable PyTorch."""
    k, r = alpha - beta, beta / alpha
    sigma = torch.sigmoid(k * (x.to(log_dtype(x)) - u0))
    first = r + (1 - r) * sigma
    second = (1 - r) * k * sigma * (1 - sigma)
    ratio = second / first
    slope = torch.zeros_like(sigma)
    if grad_y is not None:
        slope = slope + grad_y * second
    if grad_log is not None:
        per_sample = grad_log.reshape(-1, *[1] * (x.dim() - 1))
        slope = slope + per_sample * (k * (1 - 2 * sigma) * ratio - ratio**2)
    return slope, first, ratio


def _jvp(inputs: Any, output: Any, tangents: Any) -> tuple[Tensor, Tensor]:
    (x, alpha, beta, u0, _), v = inputs, tangents[0]
    ones = torch.ones_like(output[1])
    slopes = _gradient(x, None, ones, alpha, beta, u0).to(ones.dtype)
    return _gradient(x, v, None, alpha, beta, u0), per_sample_sum(slopes * v)


def _jvp_of_gradient(inputs: Any, output: Tensor, tangents: Any) -> Tensor:
    x, grad_y, grad_log, alpha, beta, u0 = inputs
    v, v_y, v_log, *_ = tangents
    parts = []
    if v is not None:
        parts.append(v * _slope_of_gradient(x, grad_y, grad_log, alpha, beta, u0)[0])
    if v_y is not None or v_log is not None:  # linear in these two
        parts.append(_gradient(x, v_y, v_log, alpha, beta, u0))
    return sum(parts[1:], parts[0]).to(output.dtype)


_forward = differentiable(_forward_op, _backward, _setup, _jvp)
_gradient = differentiable(_backward_op, _double_backward, _setup_double, _jvp_of_gradient)
_sample_sums.register("soft_relu")
