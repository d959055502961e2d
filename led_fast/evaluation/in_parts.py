"""Many images, and values of them, a few at a time."""

from collections.abc import Callable

import torch
from torch import Tensor

IMAGES_AT_A_TIME = 250


def drawn_in_parts(sample: Callable[[int], Tensor], n: int) -> Tensor:
    """What `sample(count)` draws, (count, ...), until there are n of it, on the CPU."""
    counts = [min(IMAGES_AT_A_TIME, n - start) for start in range(0, n, IMAGES_AT_A_TIME)]
    return torch.cat([sample(count).cpu() for count in counts])


def in_parts(function: Callable[[Tensor], Tensor], images: Tensor, device: torch.device | str) -> Tensor:
    """A function of images, (n, C, H, W) -> (n,), on a device, of all of them, on the CPU."""
    return torch.cat([function(part.to(device)).cpu() for part in images.split(IMAGES_AT_A_TIME)])
