"""Networks that compute in bfloat16 on the inside, and give values that have not been rounded to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn

from led_fast.ops.autocast import autocast_is_on, in_full_precision


class MixedSequential(nn.Sequential):
    """:class:`torch.nn.Sequential` whose last layer with weights computes in float32 under autocast.

    The inside of a network may compute in bfloat16, but an output that a log density depends on may not: with 8 bits a
    critic's value of 100 nats is off by 0.5 nats. `set_inner_dtype` switches autocast on for the inside alone, whatever
    the caller's autocast is. Without it the inside follows the caller's autocast; without both, all is as in torch.

    Args:
        *layers: Modules of any kind.

    Example:
        >>> import torch
        >>> from led_fast.nn import MixedSequential, set_inner_dtype
        >>> net = MixedSequential(torch.nn.Linear(2, 8), torch.nn.SiLU(), torch.nn.Linear(8, 1))
        >>> set_inner_dtype(net, torch.bfloat16)
        >>> net(torch.ones(5, 2)).dtype
        torch.float32
    """

    inner_dtype: torch.dtype | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Returns what the last layer gives."""
        if self._is_uniform(x):
            return super().forward(x)
        inside, outside = self._parts()
        with self._inside(x):
            for layer in inside:
                x = layer(x)
        with self._outside(x) as x:
            for layer in outside:
                x = layer(x)
        return x

    def _is_uniform(self, x: Tensor) -> bool:
        """Whether all layers compute in the dtype of their weights."""
        return self.inner_dtype is None and not autocast_is_on(x)

    def _parts(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """The layers before the last one with weights, and the others."""
        layers = list(self)
        # Buffers too, because those of a frozen flow are its weights.
        weighty = [i for i, layer in enumerate(layers) if any(True for _ in _tensors(layer))]
        last = max(weighty, default=len(layers))
        return layers[:last], layers[last:]

    @contextmanager
    def _inside(self, x: Tensor) -> Iterator[None]:
        if self.inner_dtype is None:
            yield
            return
        with torch.autocast(x.device.type, self.inner_dtype):
            yield

    @contextmanager
    def _outside(self, x: Tensor) -> Iterator[Tensor]:
        with in_full_precision(x, self) as x:
            yield x


def set_inner_dtype(module: nn.Module, dtype: torch.dtype | None) -> None:
    """Has every `MixedSequential` in a module, itself included, compute its inside in a dtype.

    A state dict does not hold the dtype: what is loaded computes in float32. A copy of the module keeps it.

    Args:
        module: of any kind.
        dtype: torch.bfloat16, on devices whose autocast takes it; None: the weights' dtype.

    Raises:
        ValueError: another dtype is given. float16 would need scaled losses.

    Example:
        >>> import torch
        >>> from led_fast.nn import MixedSequential, set_inner_dtype
        >>> net = MixedSequential(torch.nn.Linear(2, 8), torch.nn.SiLU(), torch.nn.Linear(8, 1))
        >>> set_inner_dtype(net, torch.bfloat16)
        >>> net(torch.zeros(3, 2)).dtype
        torch.float32
    """
    if dtype not in (None, torch.bfloat16):
        raise ValueError(f"set_inner_dtype: dtype must be torch.bfloat16 or None, got {dtype}")
    for part in module.modules():
        if isinstance(part, MixedSequential):
            part.inner_dtype = dtype


def _tensors(layer: nn.Module) -> Iterator[Tensor]:
    return chain(layer.parameters(), layer.buffers())
