"""CUDA graphs without CUDA: what is recorded is a list of operators, which a replay runs again on the same tensors.

As with CUDA, recording changes no memory and draws no random numbers, and a replay sees of the host nothing at all: a
number that it has to know must have been written to a tensor before.
"""

import types
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import fake_gpu


class Graph(TorchDispatchMode):
    """Records the operators that are called while it is open."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, list[Tensor]]] = []
        self.replays = 0
        self._before: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for argument, value in zip(op._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                for tensor in tree_leaves(value):
                    self._before.setdefault(tensor.data_ptr(), (tensor, tensor.clone()))
        out = op(*args, **kwargs)
        inputs = {_memory(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        fresh = [t for t in tree_leaves(out) if isinstance(t, Tensor) and _memory(t) not in inputs]
        if fresh or op._schema.is_mutable:
            self.calls.append((op, args, kwargs, fresh))
        return out

    @torch.no_grad()
    def put_back(self) -> None:
        """Undoes what running the operators has changed, because recording runs none."""
        for tensor, value in self._before.values():
            tensor.copy_(value)
        self._before.clear()

    @torch.no_grad()
    def replay(self) -> None:
        """Runs all again."""
        self.replays += 1
        for op, args, kwargs, fresh in self.calls:
            out = op(*args, **kwargs)
            inputs = {_memory(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
            new = [t for t in tree_leaves(out) if isinstance(t, Tensor) and _memory(t) not in inputs]
            for old, value in zip(fresh, new, strict=True):
                old.copy_(value)


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


@contextmanager
def _recording(graph: Graph, pool: object, stream: object, capture_error_mode: str) -> Iterator[None]:
    module = torch.get_device_module(fake_gpu.NAME)
    states = torch.get_rng_state(), module.get_rng_state()
    try:
        with graph, fake_gpu.Capture():
            yield
    finally:
        graph.put_back()
        torch.set_rng_state(states[0])
        module.set_rng_state(states[1])


class _Generator:
    def clone_state(self) -> None: ...

    def graphsafe_set_state(self, state: None) -> None: ...


def cuda() -> types.SimpleNamespace:
    """What `led_fast.training.graph` asks of `torch.cuda`; `made` are the graphs."""
    stream = types.SimpleNamespace(wait_stream=lambda _: None)
    made: list[Graph] = []

    def new_graph() -> Graph:
        made.append(Graph())
        return made[-1]

    return types.SimpleNamespace(
        made=made,
        CUDAGraph=new_graph,
        graph=_recording,
        graph_pool_handle=object,
        current_stream=lambda: stream,
        Stream=lambda: stream,
        stream=lambda _: nullcontext(),
        set_stream=lambda _: None,
        current_device=lambda: 0,
        default_generators=[_Generator()],
    )
