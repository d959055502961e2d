"""The log density of a mixture of diagonal normals, in one pass with its score."""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from led_fast import reference
from led_fast.ops._autograd import derivative_wanted, differentiable, graph_wanted, not_differentiable
from led_fast.ops._checks import check_floating
from led_fast.ops._sample_sums import log_dtype
from led_fast.ops._vmap import one_by_one
from led_fast.ops.backend import reference_in_use

_op = torch.ops.led_fast.mixture_log_prob.default
_backward_op = torch.ops.led_fast.mixture_log_prob_backward.default


def mixture_log_prob(x: Tensor, means: Tensor, log_scales: Tensor, log_weights: Tensor) -> Tensor:
    """`log Σ_k w_k N(x; μ_k, diag σ_k²)` of every sample, by a streaming log-sum-exp over the components.

    Memory is O(B D + K D): no (B, K) matrix. Differences x - μ are squared as they are, so that components that are
    narrow beside their means keep all their digits. Where a gradient is wanted, the score is computed on the way and
    kept; the gradients to the parameters take one more pass.

    Args:
        x: Shape (B, D), any strides; float64, float32, bfloat16 or float16. B may be 0.
        means: μ, shape (K, D), K > 0.
        log_scales: log σ, shape (K, D).
        log_weights: log w, shape (K,), taken as they are: for a density, their logsumexp must be 0. -inf is no weight.

    Returns:
        Shape (B,), in nats; float64 for float64 inputs and float32 otherwise. Half precisions are computed in
        float32, and so are all parameters where `x` is not float64; under autocast, too. -inf where x is so far
        from every mean that all squared distances overflow, with gradients of 0 if it is finite; NaN gives NaN in
        its own sample. Differentiable any number of times in all four, from the second derivative on in plain PyTorch
        with (B, K, D) numbers. The result does not depend on the number of threads.

    Raises:
        TypeError: an argument is no tensor.
        ValueError: A dtype is not of floating point, or shapes or devices do not agree.

    Example:
        >>> import torch, led_fast
        >>> x, means = torch.zeros(1, 2), torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
        >>> led_fast.mixture_log_prob(x, means, torch.zeros(2, 2), torch.tensor([0.5, 0.5]).log())
        tensor([-2.3379])
    """
    parameters = _check("mixture_log_prob", x, means, log_scales, log_weights)
    if reference_in_use():
        return reference.mixture_log_prob(x, *parameters)
    return _apply(x, *parameters, derivative_wanted(x, *parameters))[0]


def mixture_log_prob_and_score(
    x: Tensor, means: Tensor, log_scales: Tensor, log_weights: Tensor
) -> tuple[Tensor, Tensor]:
    """:func:`mixture_log_prob` and its gradient with respect to x, `Σ_k r_k (μ_k - x) / σ_k²`, in one pass.

    Args:
        x: See :func:`mixture_log_prob`, like the following ones.
        means: μ, shape (K, D).
        log_scales: log σ, shape (K, D).
        log_weights: log w, shape (K,).

    Returns:
        (log_prob, score), of shapes (B,) and (B, D), both float64 for float64 inputs and float32 otherwise. r_k is the
        share of component k in the density; where that is 0, so is the score. Both are differentiable; the score's
        derivatives are plain PyTorch, with (B, K, D) numbers.

    Raises:
        TypeError: See :func:`mixture_log_prob`.
        ValueError: Likewise.

    Example:
        >>> import torch, led_fast
        >>> x = torch.tensor([[1.0, 2.0]])
        >>> zeros = torch.zeros(1, 2)
        >>> led_fast.mixture_log_prob_and_score(x, zeros, zeros, torch.zeros(1))  # a standard normal
        (tensor([-4.3379]), tensor([[-1., -2.]]))
    """
    parameters = _check("mixture_log_prob_and_score", x, means, log_scales, log_weights)
    if reference_in_use():
        return reference.mixture_log_prob_and_score(x, *parameters)
    return _apply(x, *parameters, True)[:2]


def _check(op: str, x: Tensor, means: Tensor, log_scales: Tensor, log_weights: Tensor) -> list[Tensor]:
    """The parameters in the dtype that they are computed in."""
    check_floating(op, "x", x)
    if x.dim() != 2:
        raise ValueError(f"{op}: x must have shape (B, D), got {tuple(x.shape)}")
    named = (("means", means), ("log_scales", log_scales), ("log_weights", log_weights))
    for name, value in named:
        check_floating(op, name, value)
        if value.device != x.device:
            raise ValueError(f"{op}: {name} must be on x's device {x.device}, got {value.device}")
    if means.dim() != 2 or means.shape[1] != x.shape[1] or means.shape[0] == 0:
        raise ValueError(f"{op}: means must have shape (K, {x.shape[1]}), K > 0, got {tuple(means.shape)}")
    for name, value in named[1:]:
        shape = means.shape if name == "log_scales" else means.shape[:1]
        if value.shape != shape:
            raise ValueError(f"{op}: {name} must have shape {tuple(shape)}, got {tuple(value.shape)}")
    real = log_dtype(x)
    return [value if value.dtype == real else value.to(real) for _, value in named]


@torch.library.register_fake(_op.name())
def _fake(
    x: Tensor, means: Tensor, log_scales: Tensor, log_weights: Tensor, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    shapes = (x.shape[:1], *((x.shape, (2, x.shape[0])) if keep else (0, 0)))
    log_prob, score, shares = (x.new_empty(shape, dtype=log_dtype(x)) for shape in shapes)
    return log_prob, score, shares


@torch.library.register_fake(_backward_op.name())
def _fake_backward(grad: Tensor, x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(p, memory_format=torch.contiguous_format) for p in rest[:3])


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, ctx.keep = inputs
    _, score, shares = output
    ctx.save_for_backward(*tensors, score.clone(), shares)  # the caller may change the score in place
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Any, grad_score: Any, grad_shares: None) -> tuple[Tensor | None, ...]:
    if grad is None and grad_score is None:
        return (None,) * 5
    *inputs, score, shares = ctx.saved_tensors
    if grad_score is not None or graph_wanted():
        outputs, pull, *_ = torch.func.vjp(reference.mixture_log_prob_and_score, *inputs)
        given = zip((grad, grad_score), outputs, strict=True)
        return *pull(tuple(torch.zeros_like(o) if g is None else g for g, o in given)), None
    if not ctx.keep:  # in a trace that was made without gradients
        score, shares = _op(*inputs, True)[1:]
    grads: list[Tensor | None] = [None] * 5
    if ctx.needs_input_grad[0]:
        grads[0] = (grad.unsqueeze(1) * score).to(inputs[0].dtype)
    if any(ctx.needs_input_grad[1:4]):
        grads[1:4] = _backward_op(grad, *inputs, shares)
    return tuple(grads)


def _jvp(inputs: Any, output: Any, tangents: Any) -> tuple[Tensor, Tensor | None, None]:
    given = zip(inputs[:4], tangents[:4], strict=True)
    moved = (value if t is None else forward_ad.make_dual(value, t, level=0) for value, t in given)
    outputs = reference.mixture_log_prob_and_score(*moved)
    of_log, of_score = (forward_ad.unpack_dual(o, level=0).tangent for o in outputs)
    return of_log, of_score if inputs[4] else None, None


_apply = differentiable(_op, _backward, _setup, _jvp)
not_differentiable(_backward_op)


@torch.library.register_vmap(_op.name())
def _vmap(info: Any, in_dims: Any, x: Tensor, *rest: Any) -> Any:
    """Samples of all calls go into one where the calls share their parameters; else a loop."""
    if in_dims[0] is None or any(dim is not None for dim in in_dims[1:]):
        return one_by_one(_op, info, in_dims, x, *rest)
    x = x.movedim(in_dims[0], 0)
    sizes, keep = x.shape[:2], rest[-1]
    log_prob, score, shares = _op(x.flatten(0, 1), *rest)
    if not keep:
        return (log_prob.unflatten(0, sizes), score, shares), (0, None, None)
    return (log_prob.unflatten(0, sizes), score.unflatten(0, sizes), shares.unflatten(1, sizes)), (0, 0, 1)


torch.library.register_vmap(_backward_op.name(), partial(one_by_one, _backward_op))
