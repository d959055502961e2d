"""What the GPU benchmark measures of each operator: our call, its plain compositions, the least work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

import led_fast
from led_fast import reference
from led_fast.ops.soft_relu_per_feature import of_slopes

DEVICE = "cuda"
COMPILED = "compile"  # the baseline that is measured after all others, because it takes seconds to begin with
Call = Callable[..., object]


@dataclass(frozen=True)
class GpuCase:
    """One operator at one shape and dtype."""

    operator: str
    shape: str
    dtype: torch.dtype
    inputs: Callable[[], tuple[Tensor, ...]]  # made when the case is measured
    ours: Call
    baselines: dict[str, Call] = field(default_factory=dict)  # by name
    least_bytes: int = 0  # moved between GPU memory and chip
    least_flops: int = 0


def _same(function: Call) -> Call:
    return function


def _forward_and_backward(function: Call) -> Call:
    """The function with the gradients of the sum of its outputs."""

    def run(*inputs: Tensor) -> object:
        leaves = [x.detach().requires_grad_() for x in inputs]
        outputs = function(*leaves)
        outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
        return torch.autograd.grad(outputs, leaves, [torch.ones_like(y) for y in outputs])

    return run


def _baselines(wrap: Callable[[Call], Call], plain: Call, compiled: bool = False) -> dict[str, Call]:
    """Plain PyTorch, and torch.compile of it where its seconds of compilation are worth it."""
    baselines = {"eager": wrap(plain)}
    if compiled:
        baselines[COMPILED] = wrap(torch.compile(plain, dynamic=False))
    return baselines


def soft_relu_cases() -> list[GpuCase]:
    """From tensors of 256 MiB, which no cache holds, to one element."""
    cases = []
    shapes = [((64, 1 << 20), torch.float32), ((64, 1 << 21), torch.bfloat16)]
    shapes += [((64, 96, 32, 32), torch.float32), ((1024, 2), torch.float32), ((1, 1), torch.float32)]
    for shape, dtype in shapes:
        numel = torch.Size(shape).numel()
        # Forward: x, y. Backward: writes the cotangent of ones, reads it and x, writes the gradient.
        for name, wrap, accesses in [("forward", _same, 2), ("forward+backward", _forward_and_backward, 6)]:
            cases.append(
                GpuCase(
                    f"soft_relu {name}",
                    "x".join(map(str, shape)),
                    dtype,
                    inputs=lambda shape=shape, dtype=dtype: (torch.randn(shape, device=DEVICE).to(dtype),),
                    ours=wrap(led_fast.soft_relu),
                    baselines=_baselines(wrap, reference.soft_relu, compiled=numel >= 1 << 20),
                    least_bytes=accesses * numel * dtype.itemsize,
                )
            )
    return cases


def _elementwise_cases(
    operator: str,
    ours: Call,
    plain: Call,
    parameters: Callable[[int], tuple[Tensor, ...]],
    shape: tuple[int, ...],
    compiled: bool = False,
) -> list[GpuCase]:
    """Forward and backward of an operator whose parameters, of every feature, are small beside x."""
    return [
        GpuCase(
            f"{operator} {name}",
            "x".join(map(str, shape)),
            torch.float32,
            inputs=lambda: (torch.randn(shape, device=DEVICE), *parameters(shape[1])),
            ours=wrap(ours),
            baselines=_baselines(wrap, plain, compiled),
            least_bytes=accesses * torch.Size(shape).numel() * 4,
        )
        # As those of soft_relu.
        for name, wrap, accesses in [("forward", _same, 2), ("forward+backward", _forward_and_backward, 6)]
    ]


_LAYERS = [(64, 96, 32, 32), (1024, 2)]  # a DCGAN's, and points in the plane


def soft_relu_inverse_cases() -> list[GpuCase]:
    """Back through soft-ReLU."""
    functions = led_fast.soft_relu_inverse, reference.soft_relu_inverse
    return [
        case
        for shape in _LAYERS
        for case in _elementwise_cases("soft_relu_inverse", *functions, lambda features: (), shape)
    ]


def soft_relu_per_feature_cases() -> list[GpuCase]:
    """With learned parameters, both ways."""

    def parameters(features: int) -> tuple[Tensor, ...]:
        values = (1 / 5.8, 4.8, 0.1, 0.12)  # slope ratio, sharpness, position, shift
        return tuple(torch.full((features,), value, device=DEVICE) for value in values)

    return [
        case
        for direction, inverse in (("", False), (" inverse", True))
        for shape in _LAYERS
        for case in _elementwise_cases(
            f"soft_relu_per_feature{direction}",
            lambda *tensors, inverse=inverse: of_slopes(*tensors, inverse),
            lambda *tensors, inverse=inverse: reference.soft_relu_per_feature(*tensors, inverse),
            parameters,
            shape,
        )
    ]


def staircase_cases() -> list[GpuCase]:
    """Staircases of 8 steps, both ways."""

    def parameters(features: int) -> tuple[Tensor, ...]:
        noise = torch.randn(3, features, 8, device=DEVICE)
        centers = torch.linspace(-1.8, 1.8, 8, device=DEVICE) + 0.3 * noise[0]
        heights, steepness = (0.5 * noise[1] - 2).exp(), (0.5 * noise[2] + 1).exp()
        return centers, heights, steepness, torch.ones(features, device=DEVICE)

    functions = {
        "staircase": (led_fast.staircase, reference.staircase),
        "staircase_inverse": (led_fast.staircase_inverse, reference.staircase_inverse),
    }
    return [
        case
        for name, (ours, plain) in functions.items()
        for shape in ((64, 16, 32, 32), (1024, 2))
        for case in _elementwise_cases(
            name, ours, plain, parameters, shape, compiled=(name, shape[0]) == ("staircase", 64)
        )
    ]


def circulant_logdet_cases() -> list[GpuCase]:
    """Eight 3x3 convolutions on 32x32 images."""
    batch, grid = 8, (32, 32)
    frequencies = grid[0] * grid[1] // 2 + 2  # of the half spectrum
    # A complex elimination takes 8/3 C^3 real operations, with the inverse for the gradient 8 C^3.
    passes = [("forward", _same, 8 / 3), ("forward+backward", _forward_and_backward, 8)]
    return [
        GpuCase(
            f"circulant_logdet {name}",
            f"{batch}x{channels}x{channels}x3x3 on {grid[0]}x{grid[1]}",
            torch.float32,
            inputs=lambda channels=channels: (_convolution_near_identity(batch, channels),),
            ours=wrap(lambda weight: led_fast.circulant_logdet(weight, grid)),
            baselines=_baselines(wrap, lambda weight: reference.circulant_logdet(weight, grid)),
            least_flops=int(batch * frequencies * flops * channels**3),
        )
        for channels in (3, 8, 16, 32, 64, 128)
        for name, wrap, flops in passes
    ]


def _convolution_near_identity(batch: int, channels: int) -> Tensor:
    weight = 0.1 * torch.randn(batch, channels, channels, 3, 3, device=DEVICE) / channels**0.5
    weight[..., 1, 1] += torch.eye(channels, device=DEVICE)
    return weight


def circular_conv_inverse_cases() -> list[GpuCase]:
    """3x3 convolutions of 256 images undone."""
    samples = 256
    # A complex inverse takes 8 C^3 real operations, a product with the samples 8 C^2; backward takes two products.
    passes = [("forward", _same, 1), ("forward+backward", _forward_and_backward, 3)]
    return [
        GpuCase(
            f"circular_conv_inverse {name}",
            f"{samples}x{channels}x{size}x{size}",
            torch.float32,
            inputs=lambda channels=channels, size=size: (
                torch.randn(samples, channels, size, size, device=DEVICE),
                _convolution_near_identity(1, channels)[0],
            ),
            ours=wrap(led_fast.circular_conv_inverse),
            baselines=_baselines(wrap, _plain_circular_conv_inverse),
            least_flops=(size * size // 2 + 2) * 8 * channels**2 * (channels + products * samples),
        )
        for channels, size in [(4, 32), (16, 16), (32, 16), (64, 8), (128, 8)]
        for name, wrap, products in passes
    ]


def _plain_circular_conv_inverse(y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    x, log_abs_det = reference.circular_conv_inverse(y, weight)
    return x, log_abs_det.expand(len(y))  # of every sample, as ours


def _perpendicular_norm(x: Tensor, weight: Tensor) -> Tensor:
    return led_fast.perpendicular_norm(x, weight, stride=2, padding=1)


def _plain_perpendicular_norm(x: Tensor, weight: Tensor) -> Tensor:
    return reference.perpendicular_norm(x, weight, stride=2, padding=1)


def perpendicular_norm_cases() -> list[GpuCase]:
    """Layers of a DCGAN critic: 4x4 kernels, stride 2, padding 1, batch 128."""
    batch, cases = 128, []
    for channels, outs, size in [(1, 64, 64), (3, 64, 64), (64, 128, 32), (128, 256, 16)]:
        # t = W x and u = Wᵀ t, then twice as much again for the gradients; two operations a tap and output.
        products = 2 * 2 * batch * outs * channels * 16 * (size // 2) ** 2
        for name, wrap, times in [("forward", _same, 1), ("forward+backward", _forward_and_backward, 3)]:
            cases.append(
                GpuCase(
                    f"perpendicular_norm {name}",
                    f"{batch}x{channels}x{size}x{size} to {outs}",
                    torch.float32,
                    inputs=lambda channels=channels, outs=outs, size=size: (
                        torch.randn(batch, channels, size, size, device=DEVICE),
                        0.05 * torch.randn(outs, channels, 4, 4, device=DEVICE),
                    ),
                    ours=wrap(_perpendicular_norm),
                    baselines=_baselines(wrap, _plain_perpendicular_norm, compiled=channels == 3),
                    least_flops=times * products,
                )
            )
    return cases


def all_cases() -> list[GpuCase]:
    return [
        *soft_relu_cases(),
        *soft_relu_inverse_cases(),
        *soft_relu_per_feature_cases(),
        *staircase_cases(),
        *circulant_logdet_cases(),
        *circular_conv_inverse_cases(),
        *perpendicular_norm_cases(),
    ]
