"""Argument checks that operators share. Each error names the operator, the argument, what was wanted and what came."""

from typing import Any

import torch
from torch import Tensor

from led_fast.ops._autograd import is_moving

FLOATING = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def check_floating(op: str, name: str, value: object) -> None:
    """Raises TypeError unless `value` is a tensor, ValueError unless of float64, float32, bfloat16 or float16."""
    if getattr(value, "dtype", None) in FLOATING:  # first, because isinstance is slow for tensors
        return
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: {name} must be a tensor, got {type(value).__name__}")
    raise ValueError(f"{op}: {name} must be float64, float32, bfloat16 or float16, got {value.dtype}")


def as_number(op: str, name: str, value: Any) -> float:
    """A parameter as a float. Raises TypeError where it is no number, or where a derivative of it would be lost."""
    if isinstance(value, Tensor) and (value.dim() > 0 or is_moving(value)):
        raise TypeError(
            f"{op}: {name} must be a number, or a tensor of shape (F,) to have a derivative, got a tensor "
            f"of shape {tuple(value.shape)}{' that requires a gradient' if value.requires_grad else ''}"
        )
    if isinstance(value, str) or not hasattr(value, "__float__"):
        raise TypeError(f"{op}: {name} must be a number, got {type(value).__name__}")
    return float(value)
