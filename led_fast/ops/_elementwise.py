"""Operators that map each element by itself, with numbers for parameters, and sum log-derivatives over a sample."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from led_fast.ops._autograd import differentiable
from led_fast.ops._sample_sums import log_dtype, per_sample_sum, sample_dense_format
from led_fast.ops._vmap import flat, unflat


def elementwise(
    name: str, derivatives: Callable[..., tuple[Tensor, Tensor, Tensor]]
) -> tuple[Callable, Callable]:
    """Registers an operator's derivatives of any order, fake kernels and vmap rules.

    Args:
        name: of an operator `name(x, *floats) -> (y, log_abs_det)`, whose gradient is
            `name_backward(x, grad_y, grad_log, *floats) -> grad_x`; its floats are all or the first of them.
        derivatives: `(x, grad_y, grad_log, *floats) -> (by_x, by_grad_y, by_grad_log)`, those of grad_x element by
            element, by differentiable functions. Either gradient may be None, which stands for zeros.

    Returns:
        The functions to call the operator and its gradient by.
    """
    op = getattr(torch.ops.led_fast, name).default
    backward_op = getattr(torch.ops.led_fast, f"{name}_backward").default
    count = len(backward_op._schema.arguments) - 3

    def setup(ctx: Any, inputs: Any, output: Any) -> None:
        x, *floats = inputs
        ctx.floats = floats[:count]
        ctx.save_for_backward(x)
        ctx.set_materialize_grads(False)

    def backward(ctx: Any, grad_y: Tensor | None, grad_log: Tensor | None) -> tuple[Tensor | None, ...]:
        grad_x = None
        if grad_y is not None or grad_log is not None:
            grad_x = gradient(*ctx.saved_tensors, grad_y, grad_log, *ctx.floats)
        return grad_x, *(None for _ in op._schema.arguments[1:])

    def jvp(inputs: Any, output: Any, tangents: Any) -> tuple[Tensor, Tensor]:
        (x, *floats), v = inputs, tangents[0]
        floats = floats[:count]
        ones = torch.ones_like(output[1])
        log_slopes = gradient(x, None, ones, *floats).to(ones.dtype)
        return gradient(x, v, None, *floats), per_sample_sum(log_slopes * v)

    def setup_double(ctx: Any, inputs: Any, output: Any) -> None:
        x, grad_y, grad_log, *ctx.floats = inputs
        ctx.save_for_backward(x, grad_y, grad_log)

    def double_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, grad_y, grad_log = ctx.saved_tensors
        by_x, by_grad_y, by_grad_log = derivatives(x, grad_y, grad_log, *ctx.floats)
        return (
            (grad * by_x).to(x.dtype),
            None if grad_y is None else (grad * by_grad_y).to(grad_y.dtype),
            None if grad_log is None else per_sample_sum(grad * by_grad_log).to(grad_log.dtype),
            *(None for _ in ctx.floats),
        )

    def jvp_of_gradient(inputs: Any, output: Tensor, tangents: Any) -> Tensor:
        x, grad_y, grad_log, *floats = inputs
        v, v_y, v_log, *_ = tangents
        parts = []
        if v is not None:
            parts.append(v * derivatives(x, grad_y, grad_log, *floats)[0])
        if v_y is not None or v_log is not None:  # linear in these two
            parts.append(gradient(x, v_y, v_log, *floats))
        return sum(parts[1:], parts[0]).to(output.dtype)

    gradient = differentiable(backward_op, double_backward, setup_double, jvp_of_gradient)
    _register_fakes(op, backward_op)
    _register_vmap(op, backward_op)
    return differentiable(op, backward, setup, jvp), gradient


def _register_fakes(op: Any, backward_op: Any) -> None:
    def fake(x: Tensor, *floats: float) -> tuple[Tensor, Tensor]:
        y = torch.empty_like(x, memory_format=sample_dense_format(x))
        return y, x.new_empty(x.shape[0], dtype=log_dtype(x))

    def fake_backward(x: Tensor, grad_y: Tensor | None, grad_log: Tensor | None, *floats: float) -> Tensor:
        return torch.empty_like(x, memory_format=sample_dense_format(x))

    torch.library.register_fake(op.name(), fake)
    torch.library.register_fake(backward_op.name(), fake_backward)


def _register_vmap(op: Any, backward_op: Any) -> None:
    def vmap(info: Any, in_dims: Any, x: Tensor, *floats: Any) -> Any:
        outputs = op(flat(info, x, in_dims[0]), *floats)
        return tuple(unflat(info, v, x, in_dims[0]) for v in outputs), (0, 0)

    def vmap_backward(
        info: Any, in_dims: Any, x: Tensor, grad_y: Tensor | None, grad_log: Tensor | None, *floats: Any
    ) -> Any:
        given = zip((x, grad_y, grad_log), in_dims[:3], strict=True)
        grad_x = backward_op(*(None if v is None else flat(info, v, dim) for v, dim in given), *floats)
        return unflat(info, grad_x, x, in_dims[0]), 0

    torch.library.register_vmap(op.name(), vmap)
    torch.library.register_vmap(backward_op.name(), vmap_backward)
