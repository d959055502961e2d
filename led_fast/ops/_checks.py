"""Argument checks that operators share. Each error names the operator, the argument, what was wanted and what came."""

import torch
from torch import Tensor

FLOATING = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def check_floating(op: str, name: str, value: object) -> None:
    """Raises TypeError unless `value` is a tensor, ValueError unless of float64, float32, bfloat16 or float16."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: {name} must be a tensor, got {type(value).__name__}")
    if value.dtype not in FLOATING:
        raise ValueError(f"{op}: {name} must be float64, float32, bfloat16 or float16, got {value.dtype}")
