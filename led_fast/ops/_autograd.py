"""Derivatives of operators: reverse and forward mode, under torch.func's transforms and compilers alike."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import TransformType
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction

_LIBRARY = torch.library.Library("led_fast", "IMPL")  # while it lives, what it registered holds


def differentiable(op: Any, backward: Callable, setup_context: Callable, jvp: Callable) -> Callable:
    """Registers an operator's derivatives and returns the function to call the operator by.

    The kernel for the dispatcher's key Autograd serves whoever needs a derivative: compilers, the levels of
    `torch.func.grad`, `jvp` and `vmap` (each comes by with its own wrappers), dual tensors, tracers. In plain
    eager mode the returned function goes past the dispatcher's Python, at half the cost of a call.

    Args:
        op: `torch.ops.led_fast.<name>.default`.
        backward: `(ctx, *grads) -> grads of the inputs`, as for `torch.autograd.Function`. Where
            `graph_wanted()`, it consists of differentiable functions, so that any order follows.
        setup_context: `(ctx, inputs, output)`.
        jvp: `(inputs, output, tangents) -> tangents of the output`, by differentiable functions; None for an
            input that does not move and for an output that does not. A single output has a single tangent.
    """

    def below_autograd(*args: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return op(*args)

    def forward(ctx: Any, *args: Any) -> Any:
        output = below_autograd(*args)
        setup_context(ctx, args, output)
        return output

    def forward_of_a_level(ctx: Any, *args: Any) -> Any:
        # The next levels differentiate, too: apply() has switched that off for all.
        with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):
            output = below_autograd(*args)
        setup_context(ctx, args, output)
        return output

    def function(base: type, **members: Callable) -> Any:
        return type(op.name(), (base,), {name: staticmethod(member) for name, member in members.items()})

    eager = function(torch.autograd.Function, forward=forward, backward=backward)
    of_a_level = function(_SingleLevelFunction, forward=forward_of_a_level, backward=backward)

    def kernel(*args: Any) -> Any:
        if torch.is_grad_enabled() and torch._C._any_requires_grad(*args):
            # The tangents follow below, once the outputs have their graph.
            with enable_single_level_autograd_function(), forward_ad._set_fwd_grad_enabled(False):
                output = of_a_level.apply(*args)
        else:
            output = below_autograd(*args)
        if forward_mode():
            primals, tangents = _unpack(args)
            if any(tangent is not None for tangent in tangents):
                return _make_dual(output, jvp(primals, output, tangents))
        return output

    _LIBRARY.impl(op.name().split("::")[1], kernel, "Autograd")

    def call(*args: Any) -> Any:
        if in_transform():
            return op(*args)
        if torch.is_grad_enabled() and torch._C._any_requires_grad(*args):
            return eager.apply(*args)
        return below_autograd(*args)

    return call


def is_plain(t: Tensor) -> bool:
    """Whether a tensor is computed with at once, and followed by nothing but reverse mode."""
    return not (
        in_transform()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._functorch.is_legacy_batchedtensor(
            t
        )  # of torch.autograd.grad(..., is_grads_batched=True)
        or type(t) not in (Tensor, torch.nn.Parameter)
    )


def not_differentiable(op: Any) -> None:
    """Has an operator refuse inputs of which a derivative is wanted, instead of losing it."""

    def kernel(*args: Any) -> Any:
        wanted = torch.is_grad_enabled() and torch._C._any_requires_grad(*args)
        if wanted or (forward_mode() and any(v is not None for v in _unpack(args)[1])):
            raise NotImplementedError(f"{op.name()} cannot be differentiated")
        with torch._C._AutoDispatchBelowAutograd():
            return op(*args)

    _LIBRARY.impl(op.name().split("::")[1], kernel, "Autograd")


def in_transform() -> bool:
    """Whether a compiler, a tracer or a transform of torch.func looks on, or tensors may have tangents."""
    return (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )


def forward_mode() -> bool:
    """Whether tensors may have tangents now."""
    if forward_ad._current_level >= 0 or torch.compiler.is_dynamo_compiling():
        return forward_ad._current_level >= 0
    stack = (
        torch._C._functorch.get_interpreter_stack()
    )  # graphs of compilers enter levels without Python's count
    return stack is not None and any(level.key() == TransformType.Jvp for level in stack)


def derivative_wanted(*inputs: Tensor) -> bool:
    """Whether what is computed from these inputs may be differentiated, so that it pays to keep things for that."""
    return in_transform() or (torch.is_grad_enabled() and torch._C._any_requires_grad(*inputs))


def graph_wanted() -> bool:
    """Whether a gradient that is computed now may be differentiated again, in either mode."""
    return torch.is_grad_enabled() or forward_mode()


def is_moving(value: Tensor) -> bool:
    """Whether a transform follows this tensor, or a derivative with respect to it is wanted."""
    if value.requires_grad or torch._C._functorch.is_functorch_wrapped_tensor(value):
        return True
    return forward_mode() and forward_ad.unpack_dual(value, level=0).tangent is not None


def _unpack(args: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Tensor | None, ...]]:
    """Primals and tangents of all arguments."""
    pairs = [forward_ad.unpack_dual(a, level=0) if isinstance(a, Tensor) else (a, None) for a in args]
    primals, tangents = zip(*pairs, strict=True)
    return primals, tangents


def _make_dual(output: Any, tangents: Any) -> Any:
    if isinstance(output, tuple):
        return tuple(map(_make_dual, output, tangents))
    return output if tangents is None else forward_ad.make_dual(output, tangents, level=0)
