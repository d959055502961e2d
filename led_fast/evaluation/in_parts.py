"""Values of many images, a few at a time."""

from collections.abc import Callable

import torch
from torch import Tensor

IMAGES_AT_A_TIME = 250


def in_parts(function: Callable[[Tensor], Tensor], images: Tensor, device: torch.device | str) -> Tensor:
    """A function of images, (n, C, H, W) -> (n,), on a device, of all of them, on the CPU."""
    return torch.cat([function(part.to(device)).cpu() for part in images.split(IMAGES_AT_A_TIME)])
