"""A learned monotone staircase of every feature, and its inverse, fused with their log-derivative sums."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from led_fast import reference
from led_fast.ops import _staircase_tangents as tangents
from led_fast.ops._autograd import derivative_wanted, differentiable, forward_mode, not_differentiable
from led_fast.ops._checks import check_floating
from led_fast.ops._sample_sums import (
    derivatives_by_autograd,
    derivatives_by_gradient,
    log_dtype,
    sample_dense_format,
)
from led_fast.ops._vmap import one_by_one
from led_fast.ops.backend import reference_in_use
from led_fast.ops.blocks import Elementwise

_forward_op = torch.ops.led_fast.staircase.default
_backward_op = torch.ops.led_fast.staircase_backward.default
_inverse_op = torch.ops.led_fast.staircase_inverse.default
_inverse_backward_op = torch.ops.led_fast.staircase_inverse_backward.default


def staircase(
    x: Tensor, centers: Tensor, heights: Tensor, steepness: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor]:
    """A smooth staircase of each feature, with the log-determinant of its Jacobian, in one pass over memory.

    Elementwise `y = m x + Σ_k a_k tanh(b_k (x - c_k))`, with K steps of height 2a, steepness b and centre c on a
    slope m for each feature, and `log_abs_det = Σ log dy/dx` over each sample.

    Args:
        x: Shape (B, F, ...), any strides; float64, float32, bfloat16 or float16. B may be 0.
        centers: c, shape (F, K).
        heights: a, shape (F, K), positive.
        steepness: b, shape (F, K), positive.
        slope: m, shape (F,), positive. Whether these three are positive is not checked, because a GPU would have to
            be waited for: where the derivative is negative, log_abs_det is NaN.

    Returns:
        `y`, of `x`'s shape and dtype (channels-last stays channels-last, other strides become contiguous), and
        `log_abs_det` in nats, of shape (B,), float64 for float64 inputs and float32 otherwise. Half precisions
        are computed in float32, and so are all parameters where `x` is not float64; under autocast `x` keeps its
        dtype. ±inf give ±inf with the limiting slope, NaN gives NaN in its own element and sample only.
        Differentiable any number of times, with respect to `x` and all parameters; with an infinite element, only once.

    Raises:
        TypeError: an argument is no tensor.
        ValueError: A dtype is not of floating point, or shapes or devices do not agree.

    Example:
        >>> import torch, led_fast
        >>> x = torch.zeros(1, 2)
        >>> one = torch.ones(2, 1)
        >>> y, log_abs_det = led_fast.staircase(x, 0 * one, one, one, torch.ones(2))
        >>> y, log_abs_det.exp()  # a slope of 1 and a step of steepness 1 make a derivative of 2
        (tensor([[0., 0.]]), tensor([4.]))
    """
    parameters = _check("staircase", "x", x, centers, heights, steepness, slope)
    if reference_in_use():
        return reference.staircase(x, centers, heights, steepness, slope)
    return _forward(x, *parameters)


def staircase_derivatives(x: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
    """`dy/dx` and `∇ log_abs_det` of :func:`staircase` at x, each like x, detached."""
    fixed = _check("staircase", "x", x, *(p.detach() for p in parameters))
    if reference_in_use():
        return derivatives_by_autograd(lambda v: reference.staircase(v, *fixed), x)
    return derivatives_by_gradient(lambda v, *grads: _gradient(v, *fixed, *grads)[0], x)


def staircase_inverse(
    y: Tensor, centers: Tensor, heights: Tensor, steepness: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor]:
    """The inverse of :func:`staircase`, with the log-determinant of its own Jacobian, which is minus the other's.

    Each element is bracketed by the places where the steps bend, then found by Halley's method (Newton's with
    one more derivative), which bisects where it leaves the bracket: 2 or 3 evaluations as a rule, 80 at most
    (140 in float64). Gradients are those of the implicit function, in one pass.

    Args:
        y: Shape (B, F, ...), any strides; float64, float32, bfloat16 or float16. B may be 0.
        centers: c, shape (F, K).
        heights: a, shape (F, K), positive.
        steepness: b, shape (F, K), positive.
        slope: m, shape (F,), positive. Whether these three are positive is not checked: where one is negative, x and
            log_abs_det have no meaning. With a slope below 1e-15 (1e-50 in float64) of a step's, the staircase is so
            flat beside it that the search may end before it has found x.

    Returns:
        `x` and `log_abs_det = -Σ log dy/dx`, shapes and dtypes as in :func:`staircase`. The staircase of x is y
        up to a few roundings of `|y| + Σ a` and of x: where the staircase is flat, x is as uncertain as y's
        last digit makes it, and where it is steep, log_abs_det is that of the exact x and not of the rounded
        one. ±inf give ±inf, NaN gives NaN in its own element and sample only. Differentiable any number of
        times; neither y nor x is needed for it, so that both may be changed in place.

    Raises:
        TypeError: an argument is no tensor.
        ValueError: A dtype is not of floating point, or shapes or devices do not agree.

    Example:
        >>> import torch, led_fast
        >>> parameters = torch.zeros(3, 1), torch.ones(3, 1), torch.full((3, 1), 5.0), torch.ones(3)
        >>> x = torch.tensor([[-1.0, 0.1, 2.0]])
        >>> y, log_abs_det = led_fast.staircase(x, *parameters)
        >>> back, log_abs_det_back = led_fast.staircase_inverse(y, *parameters)
        >>> torch.allclose(back, x), torch.allclose(log_abs_det + log_abs_det_back, torch.zeros(1), atol=1e-5)
        (True, True)
    """
    parameters = _check("staircase_inverse", "y", y, centers, heights, steepness, slope)
    if reference_in_use():
        return reference.staircase_inverse(y, centers, heights, steepness, slope)
    return _inverse(y, *parameters, derivative_wanted(y, *parameters))[:2]


def _check(op: str, name: str, x: Tensor, *parameters: Tensor) -> list[Tensor]:
    """The parameters in the dtype that they are computed in."""
    check_floating(op, name, x)
    if x.dim() < 2:
        raise ValueError(f"{op}: {name} must have shape (B, F, ...), got {tuple(x.shape)}")
    names = ("centers", "heights", "steepness", "slope")
    for parameter, value in zip(names, parameters, strict=True):
        check_floating(op, parameter, value)
        if value.device != x.device:
            raise ValueError(f"{op}: {parameter} must be on {name}'s device {x.device}, got {value.device}")
    centers = parameters[0]
    if centers.dim() != 2 or len(centers) != x.shape[1]:
        wanted = f"({x.shape[1]}, K)"
        raise ValueError(f"{op}: centers must have shape {wanted}, got {tuple(centers.shape)}")
    for parameter, value in zip(names[1:], parameters[1:], strict=True):
        shape = centers.shape[:1] if parameter == "slope" else centers.shape
        if value.shape != shape:
            raise ValueError(f"{op}: {parameter} must have shape {tuple(shape)}, got {tuple(value.shape)}")
    real = log_dtype(x)
    return [value if value.dtype == real else value.to(real) for value in parameters]


@torch.library.register_fake("led_fast::staircase")
def _fake(x: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
    y = torch.empty_like(x, memory_format=sample_dense_format(x))
    return y, x.new_empty(x.shape[0], dtype=log_dtype(x))


@torch.library.register_fake("led_fast::staircase_inverse")
def _fake_inverse(
    y: Tensor, centers: Tensor, heights: Tensor, steepness: Tensor, slope: Tensor, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    x, log_abs_det = _fake(y)
    kept = torch.empty_like(x, dtype=log_dtype(y)) if keep else y.new_empty(0, dtype=log_dtype(y))
    return x, log_abs_det, kept


@torch.library.register_fake("led_fast::staircase_backward")
@torch.library.register_fake("led_fast::staircase_inverse_backward")
def _fake_backward(
    x: Tensor,
    centers: Tensor,
    heights: Tensor,
    steepness: Tensor,
    slope: Tensor,
    grad_value: Tensor | None,
    grad_log: Tensor | None,
) -> tuple[Tensor, ...]:
    grad_x = torch.empty_like(x, memory_format=sample_dense_format(x))
    parameters = (centers, heights, steepness, slope)
    return grad_x, *(torch.empty_like(p, memory_format=torch.contiguous_format) for p in parameters)


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_y: Tensor | None, grad_log: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad_y is None and grad_log is None:
        return (None,) * 5
    return _gradient(*ctx.saved_tensors, grad_y, grad_log)


def _setup_inverse(ctx: Any, inputs: Any, output: Any) -> None:
    y, *parameters, ctx.keep = inputs
    ctx.dtype = y.dtype
    # What is found carries no tangent of y: in forward mode it is found again.
    ctx.again = forward_mode()
    ctx.save_for_backward(y if ctx.again else output[2], *parameters)
    ctx.set_materialize_grads(False)


def _inverse_backward(
    ctx: Any, grad_x: Tensor | None, grad_log: Tensor | None, grad_kept: Tensor | None
) -> tuple[Tensor | None, ...]:
    if not ctx.keep:
        raise RuntimeError("staircase_inverse: keep must be True where a gradient is wanted, got False")
    x, *parameters = ctx.saved_tensors
    if ctx.again:
        x = _inverse(x, *parameters, True)[2]
    grads = [g.to(x.dtype) for g in (grad_x, grad_kept) if g is not None]
    if not grads and grad_log is None:
        return (None,) * 6
    grad_y, *of_parameters = _inverse_gradient(x, *parameters, sum(grads) if grads else None, grad_log)
    return grad_y.to(ctx.dtype), *of_parameters, None


# Second derivatives come from the plain formulas, which differentiate any number of times.


def _plain(
    x: Tensor, centers: Tensor, heights: Tensor, steepness: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor]:
    """The reference, but that it keeps its digits where a step is nearly flat: `1 - tanh²` has none left there."""
    last = x.to(log_dtype(x)).movedim(1, -1)
    z = steepness * (last[..., None] - centers)
    share = torch.sigmoid(torch.where(z < 0, 2 * z, -2 * z))
    tanh = torch.where(z < 0, 2 * share - 1, 1 - 2 * share)
    y = slope * last + (heights * tanh).sum(-1)
    derivative = slope + (4 * heights * steepness * share * (1 - share)).sum(-1)
    return y.movedim(-1, 1).to(x.dtype), derivative.log().flatten(1).sum(1)


def _plain_gradient(x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
    return torch.func.vjp(_plain, x, *rest[:4])[1](rest[4:])


def _plain_inverse_gradient(x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
    *parameters, grad_x, grad_log = rest
    pull = torch.func.vjp(_plain, x, *parameters)[1]
    nothing = torch.zeros_like(grad_log)
    derivative = pull((torch.ones_like(x), nothing))[0]
    grad_y = (grad_x - pull((torch.zeros_like(x), grad_log))[0]) / derivative
    return grad_y, *pull((-grad_y, -grad_log))[1:]


def _zeros_for_none(values: Any, like: Any) -> list[Tensor]:
    return [torch.zeros_like(t) if v is None else v for v, t in zip(values, like, strict=True)]


def _with_cotangents(inputs: Any) -> list[Tensor]:
    """A gradient's inputs, with zeros for a cotangent that is None."""
    x, *_, grad_log = inputs
    zeros = x, x.new_zeros(len(x), dtype=log_dtype(x))
    return [*inputs[:5], *_zeros_for_none((inputs[5], grad_log), zeros)]


def _second(plain: Callable, tangents_of: Callable) -> tuple[Callable, Callable, Callable]:
    """What `differentiable` takes for a gradient that `plain` computes, too, and that moves by `tangents_of`."""

    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        inputs = _with_cotangents(ctx.saved_tensors)
        results = torch.func.vjp(plain, *inputs)[1](tuple(grads))
        return tuple(
            None if given is None else r for r, given in zip(results, ctx.saved_tensors, strict=True)
        )

    def setup(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    def jvp(inputs: Any, output: Any, moves: Any) -> tuple[Tensor, ...]:
        primals = _with_cotangents(inputs)
        results = tangents_of(_in_real(primals), _in_real(_zeros_for_none(moves, primals)))
        return tuple(r.to(o.dtype) for r, o in zip(results, output, strict=True))

    return backward, setup, jvp


def _in_real(tensors: Any) -> list[Tensor]:
    return [t.to(log_dtype(t)) for t in tensors]


def _jvp(inputs: Any, output: Any, moves: Any) -> tuple[Tensor, Tensor]:
    x, *parameters = _in_real(inputs)
    dx, *of_parameters = _in_real(_zeros_for_none(moves, inputs))
    dy, of_log = tangents.of_staircase(x, parameters, dx, of_parameters)
    return dy.to(output[0].dtype), of_log


def _jvp_of_inverse(inputs: Any, output: Any, moves: Any) -> tuple[Tensor, ...]:
    dy, *of_parameters = _in_real(_zeros_for_none(moves[:5], inputs[:5]))
    dx, of_log = tangents.of_inverse(output[2], inputs[1:5], dy, of_parameters)
    return dx.to(output[0].dtype), of_log, dx


_forward = differentiable(_forward_op, _backward, _setup, _jvp)
_gradient = differentiable(_backward_op, *_second(_plain_gradient, tangents.of_gradient))
_inverse = differentiable(_inverse_op, _inverse_backward, _setup_inverse, _jvp_of_inverse)
_inverse_gradient = differentiable(
    _inverse_backward_op, *_second(_plain_inverse_gradient, tangents.of_inverse_gradient)
)


def _register_vmap(op: Any, over_samples: bool) -> None:
    """Samples of all calls go into one where `over_samples` and the calls share their parameters; else a loop."""

    def rule(info: Any, in_dims: Any, x: Tensor, *rest: Any) -> Any:
        if over_samples and in_dims[0] is not None and all(d is None for d in in_dims[1:]):
            x = x.movedim(in_dims[0], 0)
            results = op(x.flatten(0, 1), *rest)
            sizes = x.shape[:2]
            # The third output of the inverse is empty where nothing is kept, and of no dimension of x's.
            split = tuple(
                r.unflatten(0, sizes) if i < 2 or rest[-1] is True else r.new_zeros(len(x), 0)
                for i, r in enumerate(results)
            )
            return split, (0,) * len(split)
        return one_by_one(op, info, in_dims, x, *rest)

    torch.library.register_vmap(op.name(), rule)


_register_vmap(_forward_op, over_samples=True)
_register_vmap(_inverse_op, over_samples=True)
_register_vmap(_backward_op, over_samples=False)
_register_vmap(_inverse_backward_op, over_samples=False)


# ---- as a map among linear ones (`led_fast.ops.blocks`) --------------------------------------------------


def _gradient_kernel(
    x: Tensor, grad_y: Tensor | None, grad_log: Tensor | None, *parameters: Tensor
) -> tuple[Tensor, ...]:
    return _backward_op(x, *parameters, grad_y, grad_log)


_score_op = torch.ops.led_fast.staircase_score.default
not_differentiable(_score_op)
STAIRCASE = Elementwise(_forward, _forward_op, _gradient_kernel, _score_op)
