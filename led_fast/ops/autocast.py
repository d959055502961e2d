"""What must not be computed in half precision under autocast: norms, log-determinants, log densities."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor

from led_fast.ops._sample_sums import log_dtype


def autocast_is_on(x: Tensor) -> bool:
    """Whether autocast is on for x's device."""
    return not x.is_meta and torch.is_autocast_enabled(x.device.type)  # meta has none to ask for


def without_autocast(x: Tensor) -> AbstractContextManager:
    """Switches autocast off for x's device while the block runs."""
    return torch.autocast(x.device.type, enabled=False) if autocast_is_on(x) else nullcontext()


@contextmanager
def in_full_precision(t: Tensor) -> Iterator[Tensor]:
    """t in float32, or float64 where it is that, while autocast is off."""
    with without_autocast(t):
        yield t.to(log_dtype(t))
