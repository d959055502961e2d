"""Large batches in bounded memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def in_micro_batches(critic: Callable[[Tensor], Tensor], x: Tensor, size: int | None) -> Tensor:
    """The critic of a batch, with the activations of at most `size` samples in memory at a time.

    Backward runs each micro-batch forward once more. A loss of the joined values, such as the log-sum-exp
    of Eq. 3 over all integral samples, is exact, and so is its gradient: nothing is averaged by parts.

    Args:
        critic: f, (B, ...) -> (B,), that treats each sample by itself and draws no random numbers.
        x: (B, ...).
        size: samples in a micro-batch. None, or at least B: one batch, and no second forward pass.

    Example:
        >>> import torch
        >>> from led_fast.density import in_micro_batches
        >>> in_micro_batches(lambda x: x.square().sum(1), torch.ones(10, 2), size=4).shape
        torch.Size([10])
    """
    if size is None or len(x) <= size:
        return critic(x)
    parts = [
        checkpoint(critic, part, use_reentrant=False, preserve_rng_state=False) for part in x.split(size)
    ]
    return torch.cat(parts)
