"""Staircases for the tests, gentle and adversarial, and what is exact about them, by brute force in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import led_fast
from led_fast import reference

Parameters = tuple[Tensor, Tensor, Tensor, Tensor]  # centers, heights, steepness (F, K), slope (F,)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def parameters_of(kind: str, features: int, steps: int, seed: int = 1) -> Parameters:
    """Staircases of one kind, float64.

    gentle: as they begin; trained: what training makes of them; steep: e^0 to e^9; cliffs: all e^9, nearly flat
    between; bundle: all steps within 1e-4; plateaus: the slope is 1e-6; large: heights of hundreds.
    """
    a, b, c, d = (normal(features, steps, seed=seed + i) for i in range(4))
    steep = torch.rand(features, steps, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    slope = d[:, 0] if steps else normal(features, seed=seed)
    if kind == "gentle":
        return 2 * a, (0.3 * b - 1).exp(), (0.3 * c + 0.7).exp(), (0.3 * slope).exp()
    if kind == "trained":
        return 1.5 * a, (0.8 * b - 1).exp(), (c + 1.5).exp(), (0.5 * slope - 1).exp()
    if kind == "steep":
        return a, (b - 1).exp(), (9 * steep).exp(), (slope - 2).exp()
    if kind == "cliffs":
        return a, (b - 1).exp(), torch.full_like(a, 9).exp(), torch.full_like(slope, 0.01)
    if kind == "bundle":
        return 0.3 + 1e-4 * a, (b - 1).exp(), (9 * steep).exp(), torch.full_like(slope, 1e-3)
    if kind == "plateaus":
        return 3 * a, (b - 1).exp(), (5 + 4 * steep).exp(), torch.full_like(slope, 1e-6)
    if kind == "large":
        return 30 * a, (2 * b + 5).exp(), (14 * steep - 5).exp(), slope.exp()
    raise ValueError(kind)


KINDS = ["gentle", "trained", "steep", "cliffs", "bundle", "plateaus", "large"]


def value_of(x: Tensor, parameters: Parameters) -> Tensor:
    """The staircase at x, (N, F)."""
    centers, heights, steepness, slope = parameters
    return slope * x + (heights * torch.tanh(steepness * (x[..., None] - centers))).sum(-1)


def log_derivative_of(x: Tensor, parameters: Parameters) -> Tensor:
    """Its logarithmic derivative, without cancellation."""
    centers, heights, steepness, slope = parameters
    decay = torch.exp(-2 * (steepness * (x[..., None] - centers)).abs())
    return (slope + (heights * steepness * 4 * decay / (1 + decay).square()).sum(-1)).log()


def bisected(y: Tensor, parameters: Parameters) -> Tensor:
    """x with `value_of(x) == y`, (N, F), by 200 bisections."""
    _, heights, _, slope = parameters
    low, high = (y - heights.sum(-1)) / slope, (y + heights.sum(-1)) / slope
    for _ in range(200):
        middle = 0.5 * low + 0.5 * high
        below = value_of(middle, parameters) < y
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return 0.5 * low + 0.5 * high


DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
BOTH = {"staircase": led_fast.staircase, "staircase_inverse": led_fast.staircase_inverse}
REFERENCES = {"staircase": reference.staircase, "staircase_inverse": reference.staircase_inverse}
# One element, a register and its neighbours, samples of one element, short samples and long ones in parts.
SHAPES = [(1, 1), (5, 3), (70, 2), (3, 4, 7), (2, 3, 16, 16), (9, 2, 1, 3), (2, 3, 33, 131), (600, 1)]
both = pytest.mark.parametrize("name", BOTH)


def real_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def inputs_of(
    shape: tuple[int, ...], dtype: torch.dtype, steps: int = 5, kind: str = "gentle"
) -> list[Tensor]:
    parameters = parameters_of(kind, shape[1], steps)
    return [2 * normal(*shape, dtype=dtype), *(p.to(real_dtype(dtype)) for p in parameters)]


def assert_as_good_as_eager(
    ours: Tensor, eager: Tensor, exact: Tensor, terms: int = 1, units: int = 3
) -> None:
    """Our largest error is at most twice that of plain PyTorch in the same dtype, plus rounding."""
    assert ours.shape == exact.shape
    if exact.numel():
        units = 32 if ours.dtype == torch.float64 else units  # the float64 oracle rounds, too
        rounding = units * torch.finfo(ours.dtype).eps * exact.abs().max().clamp(min=max(1, terms / 16))
        assert (ours.double() - exact).abs().max() <= 2 * (eager.double() - exact).abs().max() + rounding


def gradients(function, inputs: list[Tensor], cotangents: list[Tensor | None]) -> list[Tensor]:
    leaves = [x.detach().requires_grad_() for x in inputs]
    pairs = [(o, c) for o, c in zip(function(*leaves), cotangents, strict=True) if c is not None]
    outputs = [o for o, _ in pairs]
    return list(torch.autograd.grad(outputs, leaves, [c.to(o.dtype) for o, c in pairs]))
