"""A pytest plugin: what the CUDA tests ask of torch.cuda, done by the CPU, where all work is finished at once.

So their own lines run here (`LED_FAST_TEST_DEVICE=cpu pytest -p cpu_stand_in`). A graph records the operators that are
called, and calls them again on the same tensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Stream:
    """All streams are one."""

    def wait_stream(self, other: Stream) -> None:
        assert isinstance(other, Stream)

    def synchronize(self) -> None:
        pass


class Event:
    """One that the work before it has not reached yet: nothing here waits."""

    recorded = False

    def record(self) -> None:
        self.recorded = True

    def query(self) -> bool:
        assert self.recorded
        return False


class Graph(TorchDispatchMode):
    """Operators as they were called."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outputs = function(*args, **(kwargs or {}))
        self.calls.append((function, args, kwargs or {}, outputs))
        return outputs

    @torch.no_grad()
    def replay(self) -> None:
        for function, args, kwargs, outputs in self.calls:
            again = function(*args, **kwargs)
            for old, new in zip(tree_leaves(outputs), tree_leaves(again), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


@contextmanager
def graph(recorded: Graph) -> Iterator[None]:
    with recorded:
        yield


def pytest_configure() -> None:
    stand_ins = {
        "CUDAGraph": Graph,
        "Event": Event,
        "Stream": Stream,
        "_sleep": lambda cycles: None,
        "current_stream": Stream,
        "graph": graph,
        "stream": lambda stream: nullcontext(),
        "synchronize": lambda: None,
    }
    for name, stand_in in stand_ins.items():
        setattr(torch.cuda, name, stand_in)
