"""Fourier features' CUDA kernels, run on the CPU by the SIMT executor."""

import math

import numpy as np
import pytest
import torch
from simt import Kernels, Suite
from torch import Tensor

suite = Suite("fourier_features")

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]  # by the launchers' dtype code
# Rows, dimension, directions: none of each, one of each, rows of one and of several threads, more rows than a block
# has, a rest of coordinates, several directions a thread.
SHAPES = [(0, 2, 3), (3, 0, 2), (3, 2, 0), (1, 1, 1), (600, 2, 3), (70, 3, 17), (9, 5, 128), (5, 4, 300)]


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_close(ours: Tensor, exact: Tensor, roundings: float = 1) -> None:
    eps = torch.finfo(ours.dtype).eps
    scale = exact.abs().max().clamp(min=1).item() if exact.numel() else 1
    torch.testing.assert_close(ours.double(), exact, rtol=0, atol=roundings * eps * scale)


def features_of(kernels: Kernels, x: Tensor, projection: Tensor) -> Tensor:
    rows, (dimension, directions) = len(x), projection.shape
    features = torch.full((rows, dimension + 2 * directions), torch.nan, dtype=x.dtype)
    kernels.launch(
        "led_fast_fourier_features",
        *(x, projection, features, rows, dimension, directions, DTYPES.index(x.dtype)),
    )
    return features


@suite.case(dtype=DTYPES, shape=SHAPES)
def forward(kernels: Kernels, dtype: torch.dtype, shape: tuple[int, int, int]) -> None:
    rows, dimension, directions = shape
    x = normal(rows, dimension, seed=0).to(dtype)
    projection = 3 * normal(dimension, directions, seed=1).to(dtype)
    features = features_of(kernels, x, projection)
    phases = x.double() @ projection.double()
    assert torch.equal(features[:, :dimension], x)
    # In half precision phases are as exact as in float32.
    size = phases.abs().max().item() if dtype in DTYPES[:2] and phases.numel() else 1
    assert_close(features[:, dimension:], torch.cat([phases.sin(), phases.cos()], dim=1), 1 + 4 * size)


@suite.case(dtype=DTYPES[:2])
def phases_of_all_sizes(kernels: Kernels, dtype: torch.dtype) -> None:
    sizes = torch.logspace(-8, 38 if dtype is torch.float32 else 300, 500, dtype=torch.float64)
    crossings = torch.arange(0, 70_000, 501) * (math.pi / 2)
    special = torch.tensor([0.0, 1e-3, 0.5, 1.5]).double()
    phases = torch.cat([sizes, -sizes, crossings, -crossings, special]).to(dtype)
    features = features_of(kernels, phases[:, None], torch.ones(1, 1, dtype=dtype))
    wide = phases.numpy().astype(np.longdouble)
    exact = torch.from_numpy(np.stack([np.sin(wide), np.cos(wide)], axis=1).astype(np.float64))
    assert_close(features[:, 1:], exact)
    infinite = torch.tensor([[math.inf], [-math.inf], [math.nan]], dtype=dtype)
    assert features_of(kernels, infinite, torch.ones(1, 1, dtype=dtype))[:, 1:].isnan().all()


@suite.case(dtype=DTYPES, shape=SHAPES)
def backward(kernels: Kernels, dtype: torch.dtype, shape: tuple[int, int, int]) -> None:
    rows, dimension, directions = shape
    projection = 3 * normal(dimension, directions, seed=1).to(dtype)
    grad, features = (normal(rows, dimension + 2 * directions, seed=s).to(dtype) for s in (2, 3))
    grad_x = torch.full((rows, dimension), torch.nan, dtype=dtype)
    kernels.launch(
        "led_fast_fourier_features_backward",
        *(grad, features, projection, grad_x, rows, dimension, directions, DTYPES.index(dtype)),
    )
    parts = [dimension, directions, directions]
    of_x, of_sines, of_cosines = grad.double().split(parts, 1)
    _, sines, cosines = features.double().split(parts, 1)
    exact = of_x + (of_sines * cosines - of_cosines * sines) @ projection.double().T
    assert_close(grad_x, exact, 8)


suite.wrong("beyond the rows", "if (share.row >= rows) return;", "if (share.row > rows) return;")
suite.wrong("first coordinates alone", "d < dimension; d += share.threads", "d < 1; d += share.threads")
suite.wrong(
    "one direction a thread",
    "k < directions; k += share.threads) {\n    Real phase",
    "k < share.threads; k += share.threads) {\n    Real phase",
)
suite.wrong("transposed projection", "projection + d * directions + k", "projection + k * dimension + d")
suite.wrong("sines for cosines", "T(both.cosine)", "T(both.sine)")
suite.wrong("cosines between", "to[dimension + directions + k]", "to[dimension + 2 * k + 1]")
suite.wrong("no way beyond reach", "within_reach(phase) ?", "true ?")
suite.wrong("last row twice", "share.thread == 0 && share.row < rows", "share.thread == 0")
suite.wrong("more coordinates than there are", "share.row < rows && d < dimension", "share.row < rows")
suite.wrong("one thread's sum", "group_sum(sums[j], share.threads)", "sums[j]")
suite.wrong("columns beyond the last", "min(first + j, dimension - 1)", "(first + j)")
suite.wrong("sign", "cosines[k]) -", "cosines[k]) +")
suite.wrong("without x's own", "T(static_cast<Real>(of_row[d]) + sum)", "T(sum)")

test_cases = suite.test_cases()
test_launches = suite.test_launches()


@pytest.mark.parametrize("case", [forward, backward])
def test_memory_is_read_and_written_side_by_side(case) -> None:
    """Of rows whose parts begin where a sector does."""
    rows = suite.traffic(case, dtype=torch.float32, shape=(64, 8, 128))
    assert any(row.kind == "write" for row in rows)
    assert all(row.units == row.ideal for row in rows)
