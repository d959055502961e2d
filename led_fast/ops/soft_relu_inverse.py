"""The inverse of soft-ReLU, fused with its log-derivative sum."""

import torch
from torch import Tensor

from led_fast import reference
from led_fast.ops._elementwise import elementwise
from led_fast.ops._sample_sums import along_samples, log_dtype
from led_fast.ops.backend import reference_in_use
from led_fast.ops.soft_relu import as_checked_numbers
from led_fast.ops.soft_relu_per_feature import Parameter, of_bends


def soft_relu_inverse(
    y: Tensor,
    alpha: Parameter = 5.8,
    beta: Parameter = 1.0,
    u0: Parameter = 0.0,
    t0: Parameter | None = None,
) -> tuple[Tensor, Tensor]:
    """The x with `soft_relu(x)[0] == y`, and the log-determinant of this inverse map, in one pass over memory.

    It takes a fixed number of steps, from a start that is within 1 of the solution in units of the bend, for all
    parameters and all y (csrc/soft_relu/inverse.h). So the time does not depend on the values. Each direction returns
    the log-determinant of the map it applies, so those of `soft_relu` and of its inverse cancel.

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
            a parameter is not finite or leaves float32's range: alpha, 1 / beta, alpha / beta and the sizes of u0 and
            t0 must be at most 1e30.

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


def _derivatives_of_gradient(
    y: Tensor, grad_x: Tensor | None, grad_log: Tensor | None, alpha: float, beta: float, u0: float, t0: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Those of `(grad_x - grad_log q) / L'`, `q = L''/L'`, with respect to y, grad_x and grad_log."""
    k, r = alpha - beta, beta / alpha
    x, _ = _inverse(y.to(log_dtype(y)), alpha, beta, u0, t0)
    sigma = torch.sigmoid(k * (x - u0))
    first = 1 / (r + (1 - r) * sigma)
    ratio = (1 - r) * k * sigma * torch.sigmoid(k * (u0 - x)) * first
    by_y = torch.zeros_like(x)
    if grad_x is not None:
        by_y = by_y - grad_x * ratio * first**2
    if grad_log is not None:
        by_y = by_y + along_samples(grad_log, y) * ratio * (2 * ratio - k * (1 - 2 * sigma)) * first**2
    return by_y, first, -ratio * first


_inverse, _ = elementwise("soft_relu_inverse", _derivatives_of_gradient)
