"""What the GPU benchmark measures of each operator: our call, its plain compositions, the least work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

import led_fast
from led_fast import reference

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


# A layer's tensor, and many samples of two numbers.
_LAYER_AND_POINTS = [((64, 96, 32, 32), torch.float32), ((1 << 20, 2), torch.float32)]
_FEW_POINTS = (1024, 2), torch.float32


def _elementwise_cases(
    operator: str,
    ours: Call,
    plain: Call,
    parameters: Call,
    shapes: list[tuple[tuple[int, ...], torch.dtype]] = _LAYER_AND_POINTS,
    compiled: bool = True,
) -> list[GpuCase]:
    """Forward: x, y. Backward: writes the cotangent of ones, reads it and x, writes the gradient."""
    return [
        GpuCase(
            f"{operator} {name}",
            "x".join(map(str, shape)),
            dtype,
            inputs=lambda shape=shape, dtype=dtype: (
                torch.randn(shape, device=DEVICE).to(dtype),
                *parameters(shape[1]),
            ),
            ours=wrap(ours),
            baselines=_baselines(wrap, plain, compiled=compiled and torch.Size(shape).numel() >= 1 << 20),
            least_bytes=accesses * torch.Size(shape).numel() * dtype.itemsize,
        )
        for shape, dtype in shapes
        for name, wrap, accesses in [("forward", _same, 2), ("forward+backward", _forward_and_backward, 6)]
    ]


def _bends(features: int) -> tuple[Tensor, ...]:
    """alpha, beta and u0 of each feature."""
    vector = torch.ones(features, device=DEVICE)
    return 5.8 * vector, vector, 0.1 * vector


def _steps(features: int, steps: int = 8) -> tuple[Tensor, ...]:
    """centers, heights, steepness and slope."""
    noise = torch.randn(3, features, steps, device=DEVICE)
    return (
        noise[0],
        (0.5 * noise[1] - 2).exp(),
        (0.5 * noise[2] + 1).exp(),
        torch.ones(features, device=DEVICE),
    )


def soft_relu_cases() -> list[GpuCase]:
    """The map from tensors of 256 MiB, which no cache holds, to one element; its inverse; a bend for each feature."""

    def none(_: int) -> tuple[Tensor, ...]:
        return ()

    def of_features(x: Tensor, *parameters: Tensor) -> object:
        return reference.soft_relu(x, *(p.view(1, -1, *[1] * (x.dim() - 2)) for p in parameters))

    shapes = [((64, 1 << 20), torch.float32), ((64, 1 << 21), torch.bfloat16), *_LAYER_AND_POINTS]
    shapes += [_FEW_POINTS, ((1, 1), torch.float32)]
    inverses = led_fast.soft_relu_inverse, reference.soft_relu_inverse
    return [
        *_elementwise_cases("soft_relu", led_fast.soft_relu, reference.soft_relu, none, shapes),
        *_elementwise_cases("soft_relu_inverse", *inverses, none, compiled=False),
        *_elementwise_cases("soft_relu per feature", led_fast.soft_relu, of_features, _bends),
    ]


def staircase_cases() -> list[GpuCase]:
    """Staircases of eight steps and their inverses. Arithmetic bounds both: their share says little."""
    inverses = led_fast.staircase_inverse, reference.staircase_inverse
    shapes = [*_LAYER_AND_POINTS, _FEW_POINTS]
    return [
        *_elementwise_cases("staircase", led_fast.staircase, reference.staircase, _steps, shapes),
        *_elementwise_cases("staircase_inverse", *inverses, _steps, shapes, compiled=False),
    ]


def mixture_cases() -> list[GpuCase]:
    """The base and the proposal of training in the plane, many points, and longer ones."""
    log_prob, both = "mixture_log_prob", "mixture_log_prob_and_score"
    # A difference takes a subtraction and a product, its square two operations; the score and each gradient as much.
    # Forward: x, log p; the score. Backward: the cotangent of ones, the score twice, x, the gradient.
    passes = [
        (f"{log_prob} forward", log_prob, _same, 4, (1, 1)),
        (f"{both} forward", both, _same, 8, (2, 1)),
        (f"{log_prob} forward+backward", log_prob, _forward_and_backward, 16, (5, 3)),
    ]
    return [
        GpuCase(
            name,
            f"{samples}x{dimension} to {components}",
            torch.float32,
            inputs=lambda samples=samples, dimension=dimension, components=components: (
                torch.randn(samples, dimension, device=DEVICE),
                *_mixture(components, dimension),
            ),
            ours=wrap(getattr(led_fast, function)),
            baselines=_baselines(wrap, getattr(reference, function)),
            least_bytes=4 * samples * (points * dimension + numbers),
            least_flops=operations * samples * components * dimension,
        )
        for samples, dimension, components in [(256, 2, 64), (192, 2, 640), (65536, 2, 64), (8192, 64, 64)]
        for name, function, wrap, operations, (points, numbers) in passes
    ]


def _mixture(components: int, dimension: int) -> tuple[Tensor, ...]:
    """means, log_scales and log_weights."""
    means, scales = torch.randn(2, components, dimension, device=DEVICE)
    return 2 * means, 0.3 * scales - 0.5, torch.zeros(components, device=DEVICE).log_softmax(0)


def fourier_features_cases() -> list[GpuCase]:
    """The critic of training in the plane, and many points of three coordinates."""

    def at_points(wrap: Callable[[Call], Call], function: Call) -> Call:
        return lambda x, projection: wrap(lambda x: function(x, projection))(x)

    return [
        GpuCase(
            f"fourier_features {name}",
            f"{samples}x{dimension} to {directions}",
            torch.float32,
            inputs=lambda samples=samples, dimension=dimension, directions=directions: (
                torch.randn(samples, dimension, device=DEVICE),
                10 * torch.randn(dimension, directions, device=DEVICE),
            ),
            ours=at_points(wrap, led_fast.fourier_features),
            baselines=_baselines(lambda f, wrap=wrap: at_points(wrap, f), reference.fourier_features),
            # Forward: x and the features. Backward: the features, their cotangents, the gradient.
            least_bytes=4 * samples * (points * dimension + passes * (dimension + 2 * directions)),
        )
        for samples, dimension, directions in [(640, 2, 128), (65536, 2, 128), (1048576, 3, 10)]
        for name, wrap, points, passes in [
            ("forward", _same, 1, 1),
            ("forward+backward", _forward_and_backward, 2, 3),
        ]
    ]


def circulant_logdet_cases() -> list[GpuCase]:
    """Eight 3x3 convolutions on 32x32 images, and one of more channels than a block's shared memory holds."""
    grid = (32, 32)
    frequencies = grid[0] * grid[1] // 2 + 2  # of the half spectrum
    # A complex elimination takes 8/3 C^3 real operations, with the inverse for the gradient 8 C^3.
    passes = [("forward", _same, 8 / 3), ("forward+backward", _forward_and_backward, 8)]
    return [
        GpuCase(
            f"circulant_logdet {name}",
            f"{batch}x{channels}x{channels}x3x3 on {grid[0]}x{grid[1]}",
            torch.float32,
            inputs=lambda batch=batch, channels=channels: (_convolution_near_identity(batch, channels),),
            ours=wrap(lambda weight: led_fast.circulant_logdet(weight, grid)),
            baselines=_baselines(wrap, lambda weight: reference.circulant_logdet(weight, grid)),
            least_bytes=(1 if wrap is _same else 2) * batch * channels**2 * 9 * 4,  # weight, gradient
            least_flops=int(batch * frequencies * flops * channels**3),
        )
        for batch, channels in [(8, 3), (8, 8), (8, 16), (8, 32), (8, 64), (8, 128), (1, 256)]
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
            # Forward: y, x. Backward: writes the cotangent of ones, reads it and x, writes the gradient.
            least_bytes=(2 if wrap is _same else 6) * samples * channels * size * size * 4,
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


def _unfused_perpendicular_norm(x: Tensor, weight: Tensor) -> Tensor:
    t = torch.nn.functional.conv2d(x, weight, stride=2, padding=1)
    u = torch.nn.functional.conv_transpose2d(t, weight, stride=2, padding=1)
    return torch.ops.led_fast.perpendicular_norm_to(x, u)[0]


def perpendicular_norm_cases() -> list[GpuCase]:
    """Layers of a DCGAN critic: 4x4 kernels, stride 2, padding 1, batch 128.

    Up to 4 channels, where the transposed convolution is fused, beside the library's. One row has the most.
    """
    batch, cases = 128, []
    for channels, outs, size in [(1, 64, 64), (3, 64, 64), (4, 64, 64), (64, 128, 32), (128, 256, 16)]:
        # t = W x and u = Wᵀ t, then twice as much again for the gradients; two operations a tap and output.
        products = 2 * 2 * batch * outs * channels * 16 * (size // 2) ** 2
        for name, wrap, times in [("forward", _same, 1), ("forward+backward", _forward_and_backward, 3)]:
            unfused = {"unfused": wrap(_unfused_perpendicular_norm)} if channels <= 4 else {}
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
                    baselines=_baselines(wrap, _plain_perpendicular_norm, compiled=channels == 3) | unfused,
                    # Forward: x. Backward: reads it once more, writes the gradient.
                    least_bytes=(1 if wrap is _same else 3) * batch * channels * size * size * 4,
                    least_flops=times * products,
                )
            )
    return cases


def all_cases() -> list[GpuCase]:
    return [
        *soft_relu_cases(),
        *staircase_cases(),
        *mixture_cases(),
        *fourier_features_cases(),
        *circulant_logdet_cases(),
        *circular_conv_inverse_cases(),
        *perpendicular_norm_cases(),
    ]
