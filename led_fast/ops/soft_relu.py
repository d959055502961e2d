"""soft-ReLU fused with its log-derivative sum (LED, Eq. 10-11)."""

import math

import torch
from torch import Tensor

from led_fast import reference
from led_fast.ops._checks import as_number, check_floating
from led_fast.ops._elementwise import elementwise
from led_fast.ops._sample_sums import (
    along_samples,
    derivatives_by_autograd,
    derivatives_by_gradient,
    log_dtype,
)
from led_fast.ops.backend import reference_in_use
from led_fast.ops.soft_relu_per_feature import Parameter, of_bends

_MOST = 1e30  # of parameters: beyond it float32 has no room


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
            gets a gradient and whose values are not checked. In float32 the relative error of that gradient is about
            `1e-7 alpha / (alpha - beta)`.
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
            a parameter is not finite or leaves float32's range: alpha, 1 / beta, alpha / beta and the sizes of u0 and
            t0 must be at most 1e30.

    Example:
        >>> import torch, led_fast
        >>> y, log_abs_det = led_fast.soft_relu(torch.tensor([[-10.0, 1.0, 10.0]]))
        >>> y
        tensor([[-1.8436,  0.8819,  9.8805]])
    """
    numbers = as_checked_numbers("soft_relu", "x", x, alpha, beta, u0, t0)
    if numbers is None:
        return of_bends("soft_relu", "x", x, alpha, beta, u0, t0)
    if reference_in_use():
        return reference.soft_relu(x, *numbers)
    return _forward(x, *numbers)


def soft_relu_derivatives(
    x: Tensor, alpha: float, beta: float, u0: float, t0: float
) -> tuple[Tensor, Tensor]:
    """`dy/dx` and `∇ log_abs_det` of :func:`soft_relu` at x, each like x, detached."""
    if reference_in_use():
        return derivatives_by_autograd(lambda v: reference.soft_relu(v, alpha, beta, u0, t0), x)
    return derivatives_by_gradient(lambda *inputs: _gradient(*inputs, alpha, beta, u0), x)


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
    """Raises ValueError unless alpha > beta > 0 and all parameters are finite and within float32's range."""
    if not alpha > beta > 0:
        raise ValueError(
            f"{op}: alpha and beta must satisfy alpha > beta > 0, got alpha={alpha}, beta={beta}"
        )
    if not (alpha < math.inf and abs(u0) < math.inf and abs(t0) < math.inf):
        raise ValueError(f"{op}: parameters must be finite, got alpha={alpha}, u0={u0}, t0={t0}")
    if alpha > _MOST or beta < 1 / _MOST or alpha > _MOST * beta:
        raise ValueError(
            f"{op}: alpha, 1 / beta and alpha / beta must be at most {_MOST:g}, got alpha={alpha:g}, beta={beta:g}"
        )
    if max(abs(u0), abs(t0)) > _MOST:
        raise ValueError(f"{op}: u0 and t0 must lie within ±{_MOST:g}, got u0={u0:g}, t0={t0:g}")


def _derivatives_of_gradient(
    x: Tensor, grad_y: Tensor | None, grad_log: Tensor | None, alpha: float, beta: float, u0: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Those of `grad_y L' + grad_log q`, `q = L''/L'`, with respect to x, grad_y and grad_log."""
    k, r = alpha - beta, beta / alpha
    sigma = torch.sigmoid(k * (x.to(log_dtype(x)) - u0))
    first = r + (1 - r) * sigma
    second = (1 - r) * k * sigma * (1 - sigma)
    ratio = second / first
    by_x = torch.zeros_like(sigma)
    if grad_y is not None:
        by_x = by_x + grad_y * second
    if grad_log is not None:
        by_x = by_x + along_samples(grad_log, x) * (k * (1 - 2 * sigma) * ratio - ratio**2)
    return by_x, first, ratio


_forward, _gradient = elementwise("soft_relu", _derivatives_of_gradient)
