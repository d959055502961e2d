"""torch.compile of the plain networks within critic and generator; our operators and the density's bookkeeping stay."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

from led_fast.nn import MixedSequential

Compile = Literal["off", "on"]

_SHAPES = 64  # of batches, times who wants gradients, for which networks of one class are compiled


def why_not_compile(device: torch.device) -> str:
    """Why torch.compile does not work on a device, e.g. because no compiler is there; empty where it does."""
    try:
        torch.compile(_probe)(torch.ones(2, device=device))
    except (
        Exception
    ) as error:  # of Dynamo, of Inductor, of the compiler that it calls, of the operating system
        lines = [line for line in str(error).splitlines() if line.strip()]
        return lines[0] if lines else type(error).__name__
    return ""


def _probe(x: Tensor) -> Tensor:
    return x.sin() + 1


def compile_networks(*modules: nn.Module | None) -> None:
    """Has every outermost `MixedSequential` compiled, once for each shape of its batches.

    Under `compiling()`. State dicts, and copies that were made before, stay as they are.
    """
    for module in filter(None, modules):
        for network in _networks(module):
            network.compile(dynamic=False)


def _networks(module: nn.Module) -> list[nn.Module]:
    if isinstance(module, MixedSequential):
        return [module]
    return [network for child in module.children() for network in _networks(child)]


@contextmanager
def compiling(on: bool) -> Iterator[None]:
    """What compiled networks want of torch while a training step runs."""
    if not on:
        yield
        return
    from torch._dynamo import config as dynamo  # a second to import
    from torch._functorch import config as functorch

    with (
        dynamo.patch(recompile_limit=_SHAPES),
        functorch.patch(
            donated_buffer=False
        ),  # because the score of a coupling goes back through its graph, too
    ):
        yield


def as_written(on: bool) -> Any:
    """Where compiled networks run uncompiled: their gradient cannot be differentiated again otherwise."""
    return torch.compiler.set_stance("force_eager") if on else nullcontext()
