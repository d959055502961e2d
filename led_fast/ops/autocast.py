"""What must not be computed in half precision under autocast: norms, log-determinants, log densities."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain

import torch
from torch import Tensor, nn

from led_fast.ops._sample_sums import log_dtype


def autocast_is_on(x: Tensor) -> bool:
    """Whether autocast is on for x's device."""
    return not x.is_meta and torch.is_autocast_enabled(x.device.type)  # meta has none to ask for


def without_autocast(x: Tensor) -> AbstractContextManager:
    """Switches autocast off for x's device while the block runs."""
    return torch.autocast(x.device.type, enabled=False) if autocast_is_on(x) else nullcontext()


@contextmanager
def in_full_precision(t: Tensor, module: nn.Module | None = None) -> Iterator[Tensor]:
    """t in float32, or float64 where it is that, while autocast is off; as it is for a module in half precision."""
    with without_autocast(t):
        yield widened(t, module)


def widened(t: Tensor, module: nn.Module | None = None) -> Tensor:
    """t in float32, or float64 where it is that; as it is for a module whose first weights are in half precision."""
    if module is not None:
        tensors = chain(module.parameters(), module.buffers())
        first = next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.float32)
        if first in (torch.bfloat16, torch.float16):
            return t
    return t.to(log_dtype(t))
