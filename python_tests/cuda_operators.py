"""Every operator with inputs to try it on: what the tests of GPU hazards (test_cuda_*.py) go through."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import torch
from staircase_cases import parameters_of
from torch import Tensor

import led_fast
from led_fast import reference
from led_fast.ops.soft_relu_per_feature import of_slopes

DEVICE = torch.device("cuda")
FLOATING = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
REAL = (torch.float64, torch.float32)

needs_cuda = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]


@dataclass(frozen=True)
class Operator:
    """An operator, its reference, and how to make inputs for them."""

    name: str
    function: Callable[..., Tensor | tuple[Tensor, ...]]
    reference: Callable[..., Tensor | tuple[Tensor, ...]]
    inputs: Callable[[], tuple[Tensor, ...]]  # float64, on the CPU
    empty_inputs: Callable[[], tuple[Tensor, ...]]
    dtypes: tuple[torch.dtype, ...]

    def __str__(self) -> str:
        return self.name


def _near_identity(batch: int, channels: int) -> Tensor:
    weight = torch.randn(batch, channels, channels, 3, 3, dtype=torch.float64) / (4 * channels**0.5)
    weight[..., 1, 1] += torch.eye(channels, dtype=torch.float64)
    return weight


def _plain_circular_conv_inverse(y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    x, log_abs_det = reference.circular_conv_inverse(y, weight)
    return x, log_abs_det.expand(len(y))


def _image_and_weight(batch: int, channels: int) -> tuple[Tensor, Tensor]:
    image = torch.randn(batch, channels, 18, 17, dtype=torch.float64)
    return image, torch.randn(8, channels, 4, 4, dtype=torch.float64) / (4 * channels**0.5)


def _staircase_inputs(*shape: int) -> tuple[Tensor, ...]:
    return torch.randn(shape, dtype=torch.float64), *parameters_of("gentle", shape[1], 5)


OPERATORS = [
    Operator(
        "soft_relu",
        led_fast.soft_relu,
        reference.soft_relu,
        lambda: (3 * torch.randn(7, 5, 33, 31, dtype=torch.float64),),
        lambda: (torch.empty(0, 3, 4, dtype=torch.float64),),
        FLOATING,
    ),
    Operator(
        "soft_relu_inverse",
        led_fast.soft_relu_inverse,
        reference.soft_relu_inverse,
        lambda: (3 * torch.randn(7, 5, 33, 31, dtype=torch.float64),),
        lambda: (torch.empty(0, 3, 4, dtype=torch.float64),),
        FLOATING,
    ),
    Operator(
        "staircase",
        led_fast.staircase,
        reference.staircase,
        lambda: _staircase_inputs(7, 5, 33, 31),
        lambda: _staircase_inputs(0, 3, 4),
        FLOATING,
    ),
    Operator(
        "staircase_inverse",
        led_fast.staircase_inverse,
        reference.staircase_inverse,
        lambda: _staircase_inputs(7, 5, 33, 31),
        lambda: _staircase_inputs(0, 3, 4),
        REAL,
    ),
    *(
        Operator(
            f"soft_relu_per_feature{' inverse' if inverse else ''} {shape}",
            lambda *tensors, inverse=inverse: of_slopes(*tensors, inverse),
            lambda *tensors, inverse=inverse: reference.soft_relu_per_feature(*tensors, inverse),
            lambda shape=shape: (
                3 * torch.randn(shape, dtype=torch.float64),
                *torch.rand(4, shape[1], dtype=torch.float64).add(0.3),
            ),
            lambda: (torch.empty(0, 3, 4, dtype=torch.float64), *torch.ones(4, 3, dtype=torch.float64)),
            REAL,
        )
        for inverse in (False, True)
        for shape in ((70, 40), (7, 5, 33, 31))
    ),
    # Matrices that a warp has in registers, that a block has in shared memory, and too large for that.
    *(
        Operator(
            f"circulant_logdet {channels} channels",
            lambda weight: led_fast.circulant_logdet(weight, (6, 5)),
            lambda weight: reference.circulant_logdet(weight, (6, 5)),
            lambda channels=channels: (_near_identity(2, channels),),
            lambda channels=channels: (_near_identity(0, channels),),
            REAL,
        )
        for channels in (3, 11, 40, 200)
    ),
    # Symbols that a block has in shared memory, and too large for that.
    *(
        Operator(
            f"circular_conv_inverse {channels} channels",
            led_fast.circular_conv_inverse,
            _plain_circular_conv_inverse,
            lambda channels=channels: (
                torch.randn(4, channels, 6, 5, dtype=torch.float64),
                _near_identity(1, channels)[0],
            ),
            lambda channels=channels: (
                torch.randn(0, channels, 6, 5, dtype=torch.float64),
                _near_identity(1, channels)[0],
            ),
            REAL,
        )
        for channels in (3, 40, 200)
    ),
    Operator(
        "perpendicular_norm linear",
        led_fast.perpendicular_norm,
        reference.perpendicular_norm,
        lambda: (torch.randn(5, 33, dtype=torch.float64), torch.randn(7, 33, dtype=torch.float64)),
        lambda: (torch.randn(0, 33, dtype=torch.float64), torch.randn(7, 33, dtype=torch.float64)),
        REAL,
    ),
    # Few channels, for which the transposed convolution is fused, and many.
    *(
        Operator(
            f"perpendicular_norm {channels} channels",
            lambda x, weight: led_fast.perpendicular_norm(x, weight, stride=2, padding=1),
            lambda x, weight: reference.perpendicular_norm(x, weight, stride=2, padding=1),
            lambda channels=channels: _image_and_weight(3, channels),
            lambda channels=channels: _image_and_weight(0, channels),
            REAL,
        )
        for channels in (3, 24)
    ),
]

all_operators = pytest.mark.parametrize("operator", OPERATORS, ids=str)


def make_inputs(operator: Operator, dtype: torch.dtype, device: torch.device = DEVICE) -> list[Tensor]:
    """The operator's inputs on the device; the same at every call."""
    torch.manual_seed(0)
    return [x.to(device, dtype) for x in operator.inputs()]


def as_tuple(outputs: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def values_and_gradients(function: Callable[..., object], inputs: Sequence[Tensor]) -> list[Tensor]:
    """Outputs, and gradients of a fixed linear function of them with respect to every input."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    outputs = as_tuple(function(*leaves))
    cotangents = [
        torch.linspace(-1, 1, y.numel(), dtype=torch.float64).cos().view(y.shape).to(y.device, y.dtype)
        for y in outputs
    ]
    gradients = torch.autograd.grad(outputs, leaves, cotangents)
    return [y.detach() for y in outputs] + list(gradients)


def assert_as_accurate(ours: Sequence[Tensor], plain: Sequence[Tensor], exact: Sequence[Tensor]) -> None:
    """Our error against float64 is at most twice that of plain PyTorch in our dtype, plus rounding."""
    for index, (a, b, c) in enumerate(zip(ours, plain, exact, strict=True)):
        a, b, c = a.double().cpu(), b.double().cpu(), c.double().cpu()
        scale = max(1.0, c.abs().max().item())
        error, allowed = (a - c).abs().max().item(), 2 * (b - c).abs().max().item()
        # In float64 the reference rounds as much as we do.
        roundings = 16 if ours[index].dtype is torch.float64 else 2
        allowed += roundings * torch.finfo(ours[index].dtype).eps * scale
        assert error <= allowed, f"result {index}: error {error:.3g}, allowed {allowed:.3g}"
