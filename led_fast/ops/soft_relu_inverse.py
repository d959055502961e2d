"""The inverse of soft-ReLU, fused with its log-derivative sum."""

from typing import Any

import torch
from torch import Tensor

from led_fast import reference
from led_fast.ops import _sample_sums
from led_fast.ops._autograd import differentiable
from led_fast.ops._sample_sums import log_dtype, per_sample_sum
from led_fast.ops.backend import reference_in_use
from led_fast.ops.soft_relu import as_checked_numbers
from led_fast.ops.soft_relu_per_feature import Parameter, of_bends

_inverse_op = torch.ops.led_fast.soft_relu_inverse.default
_backward_op = torch.ops.led_fast.soft_relu_inverse_backward.default


def soft_relu_inverse(
    y: Tensor,
    alpha: Parameter = 5.8,
    beta: Parameter = 1.0,
    u0: Parameter = 0.0,
    t0: Parameter | None = None,
) -> tuple[Tensor, Tensor]:
    """The x with `soft_relu(x)[0] == y`, and the log-determinant of this inverse map, in one pass over memory.

    A fixed number of steps from a start that is within 1 of the solution, in units of the bend, for all parameters
    and all y (csrc/soft_relu/inverse.h): the time does not depend on the values. Each direction returns the
    log-determinant of the map it applies, so those of `soft_relu` and of its inverse cancel.

    Args:
        y: Shape (B, ...), any strides; float64, float32, bfloat16 or float16. B may be 0.
        alpha: As of :func:`led_fast.soft_relu`, tensors included, like all that follow.
        beta: See there.
        u0: See there.
        t0: See there.

    Returns:
        `x`, of `y`'s shape and dtype (channels-last stays channels-last, other strides become contiguous), and
        `log_abs_det = -Σ log L'(x)` in nats, of shape (B,), float64 for float64 inputs and float32 otherwise. Left
        of the bend an error of y grows by `alpha / beta`; with that, x is as exact as its dtype allows. Half
        precisions are computed in float32; under autocast `y` keeps its dtype. ±inf give ±inf with the limiting
        slope, NaN gives NaN in its own element and sample only. Differentiable any number of times, in both modes.
        The gradient is computed from `y`; `x` may be changed in place.

    Raises:
        TypeError: `y` is no tensor.
        ValueError: `y` is not of a floating-point dtype or has no batch dimension, or not `alpha > beta > 0`, or
            a parameter is not finite, or `alpha / beta` exceeds 1e30.

    Example:
        >>> import torch, led_fast
        >>> y, log_abs_det = led_fast.soft_relu(torch.tensor([[-1.0, 0.5]]))
        >>> x, inverse_log_abs_det = led_fast.soft_relu_inverse(y)
        >>> torch.testing.assert_close(x, torch.tensor([[-1.0, 0.5]]))
        >>> torch.testing.assert_close(inverse_log_abs_det, -log_abs_det)
    """
    numbers = as_checked_numbers("soft_relu_inverse", "y", y, alpha, beta, u0, t0)
    if numbers is None:
        return of_bends("soft_relu_inverse", "y", y, alpha, beta, u0, t0, inverse=True)
    if reference_in_use():
        return reference.soft_relu_inverse(y, *numbers)
    return _inverse(y, *numbers)


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    y, *ctx.parameters = inputs
    ctx.save_for_backward(y)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_x: Tensor | None, grad_log: Tensor | None) -> tuple[Tensor | None, ...]:
    grad_y = None
    if grad_x is not None or grad_log is not None:
        grad_y = _gradient(*ctx.saved_tensors, grad_x, grad_log, *ctx.parameters)
    return grad_y, None, None, None, None


def _setup_double(ctx: Any, inputs: Any, output: Any) -> None:
    y, grad_x, grad_log, *ctx.parameters = inputs
    ctx.save_for_backward(y, grad_x, grad_log)


def _double_backward(ctx: Any, grad_grad: Tensor) -> tuple[Tensor | None, ...]:
    y, grad_x, grad_log = ctx.saved_tensors
    slope, first, ratio = _slope_of_gradient(y, grad_x, grad_log, *ctx.parameters)
    grad_grad_x = None if grad_x is None else (grad_grad * first).to(grad_x.dtype)
    grad_grad_log = (
        None if grad_log is None else per_sample_sum(-grad_grad * ratio * first).to(grad_log.dtype)
    )
    return (grad_grad * slope).to(y.dtype), grad_grad_x, grad_grad_log, None, None, None, None


def _slope_of_gradient(
    y: Tensor, grad_x: Tensor | None, grad_log: Tensor | None, alpha: float, beta: float, u0: float, t0: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`d grad_y / dy` of grad_y = (grad_x - grad_log q) / L', q = L''/L'; 1/L' and q. Differentiable PyTorch."""
    k, r = alpha - beta, beta / alpha
    x, _ = _inverse(y.to(log_dtype(y)), alpha, beta, u0, t0)
    sigma = torch.sigmoid(k * (x - u0))
    first = 1 / (r + (1 - r) * sigma)
    ratio = (1 - r) * k * sigma * torch.sigmoid(k * (u0 - x)) * first
    slope = torch.zeros_like(x)
    if grad_x is not None:
        slope = slope - grad_x * ratio * first**2
    if grad_log is not None:
        per_sample = grad_log.reshape(-1, *[1] * (y.dim() - 1))
        slope = slope + per_sample * ratio * (2 * ratio - k * (1 - 2 * sigma)) * first**2
    return slope, first, ratio


def _jvp(inputs: Any, output: Any, tangents: Any) -> tuple[Tensor, Tensor]:
    (y, *parameters), v = inputs, tangents[0]
    ones = torch.ones_like(output[1])
    slopes = _gradient(y, None, ones, *parameters).to(ones.dtype)
    return _gradient(y, v, None, *parameters), per_sample_sum(slopes * v)


def _jvp_of_gradient(inputs: Any, output: Tensor, tangents: Any) -> Tensor:
    y, grad_x, grad_log, *parameters = inputs
    v, v_x, v_log, *_ = tangents
    parts = []
    if v is not None:
        parts.append(v * _slope_of_gradient(y, grad_x, grad_log, *parameters)[0])
    if v_x is not None or v_log is not None:  # linear in these two
        parts.append(_gradient(y, v_x, v_log, *parameters))
    return sum(parts[1:], parts[0]).to(output.dtype)


_inverse = differentiable(_inverse_op, _backward, _setup, _jvp)
_gradient = differentiable(_backward_op, _double_backward, _setup_double, _jvp_of_gradient)
_sample_sums.register("soft_relu_inverse")
