"""Which device is the GPU: all that computes on one, or asks whether there is one, asks here.

`torch.cuda` by name has its place where CUDA kernels are called, and nowhere else.
"""

import torch

KIND = "cuda"  # tests put a device of their own in its place


def gpu() -> torch.device | None:
    """The GPU that this process uses, None where there is none."""
    return torch.device(KIND) if torch.get_device_module(KIND).is_available() else None


def is_gpu(device: torch.device | str) -> bool:
    """Whether a device is a GPU."""
    return torch.device(device).type == KIND


def gpu_or_cpu() -> torch.device:
    """Where heavy networks compute: on the GPU where there is one."""
    return gpu() or torch.device("cpu")
