"""What the kernels of circular convolutions need of a GPU's shared memory."""

import torch
from torch import Tensor


def bytes_of_symbol(channels: int, real_bytes: int) -> int:
    """Of a block that eliminates a symbol: by csrc/circulant_logdet/eliminate.cuh, and static and reserved memory."""
    matrix = channels * (channels | 1) + channels + 16  # rows of odd length, pivots, two rows of a panel
    lists = 3 * 2 * (-(-channels // 8) * 8)
    # From sm_90 on, CUDA counts the KiB that it reserves to the kernel's static memory.
    return 2 * real_bytes * matrix + lists + 1024 + 64


def exceeds_shared_memory(weight: Tensor) -> bool:
    """Whether a block of weight's device has no room for a symbol of (..., C, C, kh, kw)."""
    available = torch.cuda.get_device_properties(weight.device).shared_memory_per_block_optin  # type: ignore[attr-defined]
    return bytes_of_symbol(weight.shape[-3], weight.element_size()) > available
