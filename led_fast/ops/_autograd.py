"""Gradients of operators, under autograd as well as under torch.func's transforms."""

from collections.abc import Callable
from typing import Any

import torch


def differentiable(op: Any, backward: Callable, setup_context: Callable) -> Callable:
    """Registers an operator's gradient and returns the function to call the operator by.

    `torch.library.register_autograd` costs least per call but does not compose with `torch.func.grad` and its kin;
    `torch.autograd.Function` does. The returned function takes the one that fits.

    Args:
        op: `torch.ops.led_fast.<name>.default`.
        backward: `(ctx, *grads) -> grads of the inputs`, as for `torch.autograd.Function`.
        setup_context: `(ctx, inputs, output)`.
    """
    torch.library.register_autograd(op, backward, setup_context=setup_context)
    functions = {"forward": op, "backward": backward, "setup_context": setup_context}
    members = {name: staticmethod(function) for name, function in functions.items()}
    function: Any = type(op.name(), (torch.autograd.Function,), {**members, "generate_vmap_rule": True})

    def call(*args: Any) -> Any:
        if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
            return function.apply(*args)
        return op(*args)

    return call
