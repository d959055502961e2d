"""torch.compile of the plain networks within critic and generator; our operators and the density's bookkeeping stay."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn

from led_fast.errors import InputError, first_line
from led_fast.nn import MixedSequential

Compile = Literal["off", "on"]

_VERSIONS = 64  # of networks' code: one for each network, shape of its batches, and who wants gradients


def why_not_compile(device: torch.device) -> str:
    """Why torch.compile does not work on a device, e.g. because no compiler is there; empty where it does."""
    try:
        torch.compile(_probe)(torch.ones(2, device=device))
    # Of Dynamo, of Inductor, of the compiler that it calls, of the operating system.
    except Exception as error:
        return first_line(error)
    return ""


def _probe(x: Tensor) -> Tensor:
    return x.sin() + 1


def compile_networks(*modules: nn.Module | None) -> None:
    """Has every outermost `MixedSequential` compiled, once for each shape of its batches.

    Call them under `compiling()`. State dicts, and copies that were made before, stay as they are. Random numbers, such
    as of dropout, are the same as without.

    Raises:
        InputError: there is no such network.
    """
    networks = [network for module in filter(None, modules) for network in _networks(module)]
    if not networks:
        raise InputError("compile: on wants networks made of led_fast.nn.MixedSequential, got none")
    for network in networks:
        network.compile(dynamic=False, options={"fallback_random": True})


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

    # No donated buffers, because the score of a coupling goes back through its graph, too.
    with dynamo.patch(recompile_limit=_VERSIONS), functorch.patch(donated_buffer=False):
        yield


def as_written(on: bool) -> AbstractContextManager:
    """Where compiled networks run uncompiled: their gradient cannot be differentiated again otherwise."""
    return torch.compiler.set_stance("force_eager") if on else nullcontext()
