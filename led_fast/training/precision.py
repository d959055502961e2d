"""In what precision the critic's networks are trained; flows, densities and losses are in float32 whatever it is."""

from typing import Literal

import torch
from torch import nn

from led_fast.errors import InputError
from led_fast.flows import OneWayFlow
from led_fast.gpu import is_gpu
from led_fast.nn import set_inner_dtype

Precision = Literal["float32", "bf16"]

_NATIVE = (8, 0)  # compute capability from which a GPU multiplies in bfloat16


def automatic_precision(device: torch.device, float32_only: str) -> Precision:
    """bf16 where `check_precision` lets it pass and a GPU is faster for it, float32 elsewhere.

    Example:
        >>> import torch
        >>> from led_fast.training import automatic_precision
        >>> automatic_precision(torch.device("cpu"), float32_only="")
        'float32'
    """
    return "bf16" if is_gpu(device) and _capability(device) >= _NATIVE and not float32_only else "float32"


def check_precision(precision: Precision, device: torch.device, float32_only: str) -> None:
    """Raises InputError where a run cannot be trained in a precision; a CPU can compute in any.

    Args:
        precision: of the critic's networks.
        device: where they are.
        float32_only: what kind of networks they are that lose too much in three digits, e.g. "a critic with a penalty";
            empty for others.

    Example:
        >>> import torch
        >>> from led_fast.training import check_precision
        >>> check_precision("bf16", torch.device("cpu"), float32_only="")
    """
    if precision == "bf16" and is_gpu(device) and _capability(device) < _NATIVE:
        raise InputError(
            f"--precision: bf16 wants a GPU of compute capability 8.0, got {name_device(device)}"
        )
    if precision == "bf16" and float32_only:
        raise InputError(f"--precision: bf16 has too few digits for {float32_only}; want float32 or auto")


def name_device(device: torch.device) -> str:
    """What a device is, for people.

    Example:
        >>> import torch
        >>> from led_fast.training import name_device
        >>> name_device(torch.device("cpu"))
        'the CPU'
    """
    if not is_gpu(device):
        return "the CPU"
    return "{} (compute capability {}.{})".format(
        torch.get_device_module(device).get_device_name(device), *_capability(device)
    )


def use_precision(precision: Precision, *modules: nn.Module | None) -> None:
    """Has the networks of critics and classifiers compute in a precision.

    Networks inside a flow stay as they are: in bf16 they would move log q at data by up to a nat (docs/precision.md).
    """
    for module in filter(None, modules):
        set_inner_dtype(module, torch.bfloat16 if precision == "bf16" else None)
        for part in module.modules():
            if isinstance(part, OneWayFlow):
                set_inner_dtype(part, None)


def _capability(device: torch.device) -> tuple[int, int]:
    return torch.get_device_module(device).get_device_capability(device)
