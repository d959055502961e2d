"""Every operator with inputs to try it on: what the tests of GPU hazards (test_cuda_*.py) go through.

These tests are for a GPU. test_gpu_tests_on_cpu.py runs them on the CPU, so that a mistake of their own shows before;
$LED_FAST_TEST_DEVICE names the device.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import long_double
import pytest
import torch
from mixture_cases import mixture_of, points_of
from staircase_cases import parameters_of
from torch import Tensor

import led_fast
from led_fast import reference
from led_fast.ops.soft_relu_per_feature import of_slopes

DEVICE = torch.device(os.environ.get("LED_FAST_TEST_DEVICE", "cuda"))
FLOATING = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
REAL = (torch.float64, torch.float32)

needs_cuda = [
    pytest.mark.cuda,
    pytest.mark.skipif(DEVICE.type == "cuda" and not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
    pytest.mark.usefixtures("full_precision"),
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
    # Outputs and gradients from inputs and cotangents in extended precision, where float64 is not exact enough.
    exact: Callable[[Sequence[Tensor], Sequence[Tensor]], list[Tensor]] | None = None
    pivots: int = 1  # of an elimination, whose rounding grows with them
    eliminations: int = 1  # of which a log-determinant adds the logarithms of all pivots
    waits: bool = (
        False  # in float32, for PyTorch's factorisation of large matrices, which no graph can capture either
    )
    alone: bool = True  # runs our kernels and PyTorch's elementwise ones, no library

    def __str__(self) -> str:
        return self.name


def _near_permutation(batch: int, channels: int) -> Tensor:
    """Well-conditioned at every frequency, so that no seed is unlucky, with pivots off the diagonal."""
    weight = torch.randn(batch, channels, channels, 3, 3, dtype=torch.float64) / (8 * channels**0.5)
    weight[..., 1, 1] += torch.eye(channels, dtype=torch.float64)[torch.randperm(channels)]
    return weight


def _plain_circular_conv_inverse(y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    x, log_abs_det = reference.circular_conv_inverse(y, weight)
    return x, log_abs_det.expand(len(y))


def _image_and_weight(batch: int, channels: int) -> tuple[Tensor, Tensor]:
    image = torch.randn(batch, channels, 18, 17, dtype=torch.float64)
    return image, torch.randn(8, channels, 4, 4, dtype=torch.float64) / (4 * channels**0.5)


def _exact_logdet(inputs: Sequence[Tensor], cotangents: Sequence[Tensor]) -> list[Tensor]:
    return long_double.circulant_logdet(inputs[0], _grid(inputs[0].shape[-3]), cotangents[0])


def _exact_inverse(inputs: Sequence[Tensor], cotangents: Sequence[Tensor]) -> list[Tensor]:
    return long_double.circular_conv_inverse(inputs[0], inputs[1], (cotangents[0], cotangents[1]))


LARGE = 176  # channels: more than a block has room for, on every GPU until now


def _grid(channels: int) -> tuple[int, int]:
    return (2, 3) if channels == LARGE else (6, 5)


def _inputs_per_feature(*shape: int) -> tuple[Tensor, ...]:
    ratio, *others = torch.rand(4, shape[1], dtype=torch.float64).add(0.3)
    if len(shape) > 2:  # slope ratios above 1 too would let large sums cancel, whose rounding then counts
        ratio = ratio.clamp(max=0.9)
    return 3 * torch.randn(shape, dtype=torch.float64), ratio, *others


def _staircase_inputs(*shape: int) -> tuple[Tensor, ...]:
    return torch.randn(shape, dtype=torch.float64), *parameters_of("gentle", shape[1], 5)


def _mixture_inputs(samples: int, dimension: int, components: int) -> tuple[Tensor, ...]:
    mixture = mixture_of(components, dimension)
    return points_of(mixture, samples), *mixture


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
            lambda shape=shape: _inputs_per_feature(*shape),
            lambda: (torch.empty(0, 3, 4, dtype=torch.float64), *torch.ones(4, 3, dtype=torch.float64)),
            REAL,
        )
        for inverse in (False, True)
        for shape in ((70, 40), (7, 5, 33, 31))
    ),
    # Fewer components than a warp has at once, and more.
    *(
        Operator(
            f"mixture_log_prob {components} components",
            led_fast.mixture_log_prob_and_score,
            reference.mixture_log_prob_and_score,
            lambda components=components: _mixture_inputs(700, 3, components),
            lambda components=components: _mixture_inputs(0, 3, components),
            REAL,
        )
        for components in (7, 300)
    ),
    Operator(
        "fourier_features",
        led_fast.fourier_features,
        reference.fourier_features,
        lambda: (torch.randn(700, 3, dtype=torch.float64), torch.randn(3, 70, dtype=torch.float64)),
        lambda: (torch.empty(0, 3, dtype=torch.float64), torch.randn(3, 70, dtype=torch.float64)),
        FLOATING,
        alone=False,
    ),
    # Matrices that a warp has in registers, that a block has in shared memory, and too large for that.
    *(
        Operator(
            f"circulant_logdet {channels} channels",
            lambda weight: led_fast.circulant_logdet(weight, _grid(weight.shape[-3])),
            lambda weight: reference.circulant_logdet(weight, _grid(weight.shape[-3])),
            lambda channels=channels: (_near_permutation(2, channels),),
            lambda channels=channels: (_near_permutation(0, channels),),
            REAL,
            exact=_exact_logdet,
            pivots=channels,
            eliminations=math.prod(_grid(channels)),
            waits=channels == LARGE,
            alone=channels < LARGE,
        )
        for channels in (3, 11, 40, LARGE)
    ),
    # Symbols that a block has in shared memory, and too large for that. All take cuFFT.
    *(
        Operator(
            f"circular_conv_inverse {channels} channels",
            led_fast.circular_conv_inverse,
            _plain_circular_conv_inverse,
            lambda channels=channels: (
                torch.randn(4, channels, *_grid(channels), dtype=torch.float64),
                _near_permutation(1, channels)[0],
            ),
            lambda channels=channels: (
                torch.randn(0, channels, *_grid(channels), dtype=torch.float64),
                _near_permutation(1, channels)[0],
            ),
            REAL,
            exact=_exact_inverse,
            pivots=channels,
            eliminations=math.prod(_grid(channels)),
            waits=channels == LARGE,
            alone=False,
        )
        for channels in (3, 40, LARGE)
    ),
    Operator(
        "perpendicular_norm linear",
        led_fast.perpendicular_norm,
        reference.perpendicular_norm,
        lambda: (torch.randn(5, 33, dtype=torch.float64), torch.randn(7, 33, dtype=torch.float64)),
        lambda: (torch.randn(0, 33, dtype=torch.float64), torch.randn(7, 33, dtype=torch.float64)),
        REAL,
        alone=False,
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
            alone=False,
        )
        for channels in (3, 24)
    ),
]

all_operators = pytest.mark.parametrize("operator", OPERATORS, ids=str)


def make_inputs(
    operator: Operator, dtype: torch.dtype, device: torch.device = DEVICE, seed: int = 0
) -> list[Tensor]:
    """The operator's inputs on the device; the same at every call."""
    torch.manual_seed(seed)
    return [x.to(device, dtype) for x in operator.inputs()]


def as_tuple(outputs: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def cotangents_of(outputs: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """The coefficients of a fixed linear function of the outputs."""
    return [
        torch.linspace(-1, 1, y.numel(), dtype=torch.float64).cos().view(y.shape).to(y.device, y.dtype)
        for y in as_tuple(outputs)
    ]


def values_and_gradients(
    function: Callable[..., object], inputs: Sequence[Tensor], cotangents: Sequence[Tensor] | None = None
) -> list[Tensor]:
    """Outputs, and gradients of a fixed linear function of them with respect to every input.

    Without its coefficients they are made here, which copies to the GPU and so waits for it.
    """
    leaves = [x.detach().requires_grad_() for x in inputs]
    outputs = as_tuple(function(*leaves))
    gradients = torch.autograd.grad(outputs, leaves, cotangents or cotangents_of(outputs))
    return [y.detach() for y in outputs] + list(gradients)


def truth(operator: Operator, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Values and gradients at these inputs: in extended precision for float64 where that is needed, else in float64."""
    wide = [x.double().cpu() for x in inputs]
    in_float64 = values_and_gradients(operator.reference, wide)
    if operator.exact is None or inputs[0].dtype is not torch.float64:
        return in_float64
    exact = operator.exact(wide, cotangents_of(operator.reference(*wide)))
    # From a wrong truth plain PyTorch would be far as well, and everything allowed.
    torch.testing.assert_close(in_float64, exact, rtol=1e-9, atol=1e-9)
    return exact


def assert_as_accurate(
    operator: Operator, ours: Sequence[Tensor], plain: Sequence[Tensor], exact: Sequence[Tensor]
) -> None:
    """Our error is at most twice that of plain PyTorch in our dtype, plus roundings.

    In half precisions roundings alone, because we compute in float32; plain PyTorch errs by thousands of them.
    """
    for index, (a, b, c) in enumerate(zip(ours, plain, exact, strict=True)):
        error, plain_error = ((x.double().cpu() - c).abs().max().item() for x in (a, b))
        rounding = torch.finfo(a.dtype).eps * max(1.0, c.abs().max().item())
        # In float64 the truth of operators without pivots rounds as plain PyTorch does.
        terms = operator.pivots * (operator.eliminations if a.dim() <= 1 else 1)  # logarithms may cancel
        roundings = max(terms, 16 if a.dtype is torch.float64 else 2)
        allowed = roundings * rounding + (2 * plain_error if b.dtype in REAL else 0)
        assert error <= allowed, (
            f"result {index}: error {error:.3g}, plain PyTorch's {plain_error:.3g}, a rounding {rounding:.3g}"
        )
