"""Where a training step's time goes: seconds, tensor operations, bytes and matrix products of each part.

Seconds are those of a step as it is. The rest is counted in another one by a dispatch mode, below autograd, so that
backward counts, too; under it, our convolutions give way to PyTorch's, and runs of a flow's layers to the layers. A
part's figures are its own: without those of parts within it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from training_step import cycle, steps_of

from led_fast.training import Trainer
from led_fast.training.readings import PackedReadings, Readings

REST = "losses, and what else there is"
_ROUNDS = 30


@dataclass
class Part:
    """Figures of a step; `flops` counts those of matrix products and convolutions, 2 for a multiplication and a sum."""

    seconds: float = 0.0
    operations: float = 0.0
    bytes: float = 0.0
    flops: float = 0.0


class _Parts:
    """Knows the part of a step that is under way, and hands time to it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._open = [REST]
        self._since = time.perf_counter()

    @property
    def now(self) -> str:
        return self._open[-1]

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self._count()
        self._open.append(name)
        try:
            yield
        finally:
            self._count()
            self._open.pop()

    def _count(self) -> None:
        now = time.perf_counter()
        self.seconds[self.now] += now - self._since
        self._since = now

    def within(self, name: str | Callable[[], str], function: Callable) -> Callable:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with self.part(name if isinstance(name, str) else name()):
                return function(*args, **kwargs)

        return wrapped


class _Counts(TorchDispatchMode):
    def __init__(self, parts: _Parts) -> None:
        super().__init__()
        self._parts, self.parts = parts, defaultdict(Part)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        part = self.parts[self._parts.now]
        part.operations += 1
        tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor)]
        if not function.is_view:
            part.bytes += sum(t.numel() * t.element_size() for t in tensors)
        if count := flop_registry.get(function.overloadpacket):
            part.flops += count(*args, **(kwargs or {}), out_val=out)
        return out


@contextmanager
def _watched(trainer: Trainer, parts: _Parts) -> Iterator[None]:
    """The trainer with each part of its step named."""
    task, generator = trainer.task, trainer.generator
    within, at = parts.within, {"backward": "critic"}

    def of(name: str, method: Callable) -> Callable:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            at["backward"] = name
            return method(*args, **kwargs)

        return wrapped

    named = [
        (task, "data", "data"),
        (task, "proposals", "proposals"),
        (task, "tilted_samples", "proposals"),
        (task, "generated", "generator's samples, with their score where it is wanted"),
        (generator, "log_prob", "generator's likelihood of data"),
        (trainer, "_function", "critic"),
        (task, "discriminate", "critic"),
        (task, "squared_gradient", "gradient penalty"),
        (trainer, "_update_averages", "averages of the weights"),
        (Readings, "pack", "metrics"),
        (PackedReadings, "read", "metrics"),
    ]
    patches = [mock.patch.object(on, name, within(label, getattr(on, name))) for on, name, label in named]
    backward = within(lambda: f"backward of the {at['backward']}'s loss", Tensor.backward)
    patches += [
        mock.patch.object(Tensor, "backward", backward),
        mock.patch.object(trainer, "_step_critic", of("critic", trainer._step_critic)),
        mock.patch.object(trainer, "_step_generator", of("generator", trainer._step_generator)),
    ]
    for optimizer in (trainer.critic_optimizer, trainer.generator_optimizer):
        patches.append(mock.patch.object(optimizer, "step", within("optimisers", optimizer.step)))
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


def profile(trainer: Trainer, rounds: int = _ROUNDS) -> dict[str, Part]:
    """Figures of every part of a step, on the average of a cycle; seconds, the median of rounds."""
    cycle(trainer)
    taken = []
    for _ in range(rounds):
        parts = _Parts()
        with _watched(trainer, parts):
            cycle(trainer)
            with parts.part("outside"):
                pass
        taken.append(parts.seconds)
    parts = _Parts()
    with _watched(trainer, parts), _Counts(parts) as counts:
        cycle(trainer)
    found = counts.parts
    for name, part in found.items():
        times = sorted(seconds[name] for seconds in taken)
        part.seconds = times[len(times) // 2]
        for figure in ("seconds", "operations", "bytes", "flops"):
            setattr(part, figure, getattr(part, figure) / steps_of(trainer))
    return dict(found)


def flops_per_second(size: int = 1024, rounds: int = 10) -> float:
    """The most that this machine's matrix product in float32 reaches."""
    a, b = torch.randn(2, size, size)
    least = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        a @ b
        least = min(least, time.perf_counter() - began)
    return 2 * size**3 / least
