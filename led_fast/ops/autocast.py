"""What must not be computed in half precision under autocast: norms, log-determinants, log densities."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def autocast_is_on(x: Tensor) -> bool:
    """Whether autocast is on for x's device."""
    return not x.is_meta and torch.is_autocast_enabled(x.device.type)  # meta has none to ask for


def without_autocast(x: Tensor) -> AbstractContextManager:
    """Switches autocast off for x's device while the block runs."""
    return torch.autocast(x.device.type, enabled=False) if autocast_is_on(x) else nullcontext()
