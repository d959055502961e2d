"""soft-ReLU fused with its log-derivative sum (LED, Eq. 10-11)."""

import math
from typing import Any

import torch
from torch import Tensor

from led_fast import reference
from led_fast.ops._autograd import differentiable, is_moving
from led_fast.ops._checks import check_floating
from led_fast.ops.backend import reference_in_use

_forward_op = torch.ops.led_fast.soft_relu.default
_backward_op = torch.ops.led_fast.soft_relu_backward.default


def soft_relu(
    x: Tensor, alpha: float = 5.8, beta: float = 1.0, u0: float = 0.0, t0: float | None = None
) -> tuple[Tensor, Tensor]:
    """The invertible activation of LED, with the log-determinant of its Jacobian, in one pass over memory.

    Elementwise `y = log(exp(alpha (x - u0)) + exp(beta (x - u0))) / alpha - t0` (LED, Eq. 10), whose slope rises
    from `beta / alpha` to 1, and `log_abs_det = Σ log y'(x)` over each sample (Eq. 11).

    Args:
        x: Shape (B, ...), any strides; float64, float32, bfloat16 or float16. B may be 0.
        alpha: Sharpness of the bend; must exceed `beta`. Like the next three a number, or a 0-d tensor that
            requires no gradient, which is read at once.
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
    check_floating("soft_relu", "x", x)
    if x.dim() == 0:
        raise ValueError("soft_relu: x must have shape (B, ...), got a 0-d tensor")
    if t0 is None and type(alpha) is float and alpha:
        t0 = math.log(2) / alpha
    if not type(alpha) is type(beta) is type(u0) is type(t0) is float:
        alpha, beta, u0, t0 = as_numbers("soft_relu", alpha, beta, u0, t0)
    check_parameters("soft_relu", alpha, beta, u0, t0)
    if reference_in_use():
        return reference.soft_relu(x, alpha, beta, u0, t0)
    return _forward(x, alpha, beta, u0, t0)


def as_numbers(
    op: str, alpha: object, beta: object, u0: object, t0: object
) -> tuple[float, float, float, float]:
    """The parameters as floats, t0 by its default where it is None. Raises TypeError where one is no number."""
    alpha, beta, u0 = (
        _number(op, name, value) for name, value in (("alpha", alpha), ("beta", beta), ("u0", u0))
    )
    if t0 is None:
        return alpha, beta, u0, math.log(2) / alpha if alpha else 0.0
    return alpha, beta, u0, _number(op, "t0", t0)


def _number(op: str, name: str, value: Any) -> float:
    if isinstance(value, Tensor) and (value.dim() > 0 or is_moving(value)):
        raise TypeError(
            f"{op}: {name} must be a number, because no derivative with respect to it is computed, got a tensor "
            f"of shape {tuple(value.shape)}{' that requires a gradient' if value.requires_grad else ''}"
        )
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{op}: {name} must be a number, got {type(value).__name__}") from None


def check_parameters(op: str, alpha: float, beta: float, u0: float, t0: float) -> None:
    """Raises ValueError unless alpha > beta > 0 and all parameters are finite and representable in float32."""
    if not alpha > beta > 0:
        raise ValueError(f"{op}: alpha > beta > 0 is required, got alpha={alpha}, beta={beta}")
    if not (alpha < math.inf and abs(u0) < math.inf and abs(t0) < math.inf):
        raise ValueError(f"{op}: parameters must be finite, got alpha={alpha}, u0={u0}, t0={t0}")
    if alpha > 1e30 * beta:
        raise ValueError(f"{op}: alpha / beta must be at most 1e30, got {alpha / beta:g}")


def _sample_dense_format(x: Tensor) -> torch.memory_format:
    """The layout of results; csrc/common/tensor.h makes the same choice."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    if not x.is_contiguous() and x.dim() in formats and x.is_contiguous(memory_format=formats[x.dim()]):
        return formats[x.dim()]
    return torch.contiguous_format


def _log_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


@torch.library.register_fake("led_fast::soft_relu")
def _fake(x: Tensor, alpha: float, beta: float, u0: float, t0: float) -> tuple[Tensor, Tensor]:
    y = torch.empty_like(x, memory_format=_sample_dense_format(x))
    return y, x.new_empty(x.shape[0], dtype=_log_dtype(x))


@torch.library.register_fake("led_fast::soft_relu_backward")
def _fake_backward(
    x: Tensor, grad_y: Tensor | None, grad_log: Tensor | None, alpha: float, beta: float, u0: float
) -> Tensor:
    return torch.empty_like(x, memory_format=_sample_dense_format(x))


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
    grad_grad_log = None if grad_log is None else _per_sample_sum(grad_grad * ratio).to(grad_log.dtype)
    return (grad_grad * slope).to(x.dtype), grad_grad_y, grad_grad_log, None, None, None


def _slope_of_gradient(
    x: Tensor, grad_y: Tensor | None, grad_log: Tensor | None, alpha: float, beta: float, u0: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`d grad_x / dx` of grad_x = grad_y L' + grad_log L''/L', then L' and L''/L'. Differentiable PyTorch."""
    k, r = alpha - beta, beta / alpha
    sigma = torch.sigmoid(k * (x.to(_log_dtype(x)) - u0))
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


def _per_sample_sum(v: Tensor) -> Tensor:
    return v.unsqueeze(-1).flatten(1).sum(1)


def _jvp(inputs: Any, output: Any, tangents: Any) -> tuple[Tensor, Tensor]:
    (x, alpha, beta, u0, _), v = inputs, tangents[0]
    ones = torch.ones_like(output[1])
    slopes = _gradient(x, None, ones, alpha, beta, u0).to(ones.dtype)
    return _gradient(x, v, None, alpha, beta, u0), _per_sample_sum(slopes * v)


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


@torch.library.register_vmap("led_fast::soft_relu")
def _vmap(info: Any, in_dims: Any, x: Tensor, *parameters: Any) -> Any:
    x = x.movedim(in_dims[0], 0)
    y, log_abs_det = _forward_op(x.flatten(0, 1), *parameters)
    return (y.unflatten(0, x.shape[:2]), log_abs_det.unflatten(0, x.shape[:2])), (0, 0)


@torch.library.register_vmap("led_fast::soft_relu_backward")
def _vmap_backward(
    info: Any, in_dims: Any, x: Tensor, grad_y: Tensor | None, grad_log: Tensor | None, *parameters: Any
) -> Any:
    def flat(tensor: Tensor | None, dim: int | None) -> Tensor | None:
        if tensor is None:
            return None
        tensor = tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        return tensor.flatten(0, 1)

    grad_x = _backward_op(*map(flat, (x, grad_y, grad_log), in_dims[:3]), *parameters)
    return grad_x.unflatten(0, (info.batch_size, grad_x.shape[0] // info.batch_size)), 0
