"""Gradients of operators, under autograd as well as under torch.func's transforms."""

from collections.abc import Callable
from typing import Any

import torch


def differentiable(op: Any, backward: Callable, setup_context: Callable) -> Callable:
    """Registers an operator's gradient and returns the function to call the operator by.

    Three ways lead to the same gradient, and the returned function takes the one that fits:
    `torch.library.register_autograd` for compilers and for whoever calls the operator itself; a
    `torch.autograd.Function` with `setup_context` for `torch.func.grad` and its kin, which the former does not
    compose with; and, in plain eager mode, one without, which costs half as much per call.

    Args:
        op: `torch.ops.led_fast.<name>.default`.
        backward: `(ctx, *grads) -> grads of the inputs`, as for `torch.autograd.Function`.
        setup_context: `(ctx, inputs, output)`.
    """
    torch.library.register_autograd(op, backward, setup_context=setup_context)

    def below_autograd(*args: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return op(*args)

    def forward(ctx: Any, *args: Any) -> Any:
        output = below_autograd(*args)
        setup_context(ctx, args, output)
        return output

    def function(**members: Callable) -> Any:
        statics = {name: staticmethod(member) for name, member in members.items()}
        return type(op.name(), (torch.autograd.Function,), {**statics, "generate_vmap_rule": True})

    transformable = function(forward=op, backward=backward, setup_context=setup_context)
    eager = function(forward=forward, backward=backward)

    def call(*args: Any) -> Any:
        if torch.compiler.is_compiling():
            return op(*args)
        if torch._C._are_functorch_transforms_active():
            return transformable.apply(*args)
        if torch.is_grad_enabled() and torch._C._any_requires_grad(*args):
            return eager.apply(*args)
        return below_autograd(*args)

    return call
