"""The mixture's CUDA kernels, run on the CPU by the SIMT executor."""

import math

import pytest
import torch
from mixture_cases import by_distributions, mixture_of, normal, points_of
from simt import Kernels, Suite
from torch import Tensor

suite = Suite("mixture")

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]  # by the launchers' dtype code
TOGETHER, SLICE, MOST_SLICES = (
    128,
    512,
    64,
)  # components of a warp at once, samples of a slice, slices at most
# Samples, dimension, components: none, one of each, components that fill a warp's turn or not, several turns, more
# dimensions than lanes, several slices of samples.
SHAPES = [
    (0, 2, 3),
    (1, 1, 1),
    (9, 2, 7),
    (5, 3, TOGETHER),
    (3, 2, 2 * TOGETHER + 5),
    (4, 35, 130),
    (1100, 2, 3),
]


def real_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype is torch.float64 else torch.float32


def problem(shape: tuple[int, int, int], dtype: torch.dtype) -> tuple[Tensor, list[Tensor]]:
    samples, dimension, components = shape
    mixture = mixture_of(components, dimension)
    return points_of(mixture, samples).to(dtype), [p.to(real_dtype(dtype)) for p in mixture]


def table_of(shape: tuple[int, int, int], real: torch.dtype) -> Tensor:
    filled_up = -(-shape[2] // TOGETHER) * TOGETHER
    return torch.full((filled_up * (2 * shape[1] + 1),), torch.nan, dtype=real)


def assert_close(ours: Tensor, exact: Tensor, terms: int = 1) -> None:
    eps = torch.finfo(ours.dtype).eps
    scale = exact.abs().max().clamp(min=1).item()
    torch.testing.assert_close(ours.double(), exact, rtol=32 * eps, atol=16 * eps * terms * scale)


def forward_of(kernels: Kernels, x: Tensor, mixture: list[Tensor], keep: bool) -> list[Tensor | None]:
    """log_prob, score and shares."""
    real, shape = mixture[0].dtype, (*x.shape, len(mixture[0]))
    log_prob, score, shares = (
        torch.full(size, torch.nan, dtype=real) for size in ((len(x),), x.shape, (2, len(x)))
    )
    results = [log_prob, *((score, shares) if keep else (None, None))]
    kernels.launch(
        "led_fast_mixture_log_prob",
        *(x, *results, table_of(shape, real), *mixture, *shape),
        DTYPES.index(x.dtype),
    )
    return results


@suite.case(dtype=DTYPES, shape=SHAPES, keep=[True])
@suite.case(dtype=DTYPES, shape=[(9, 2, 130)], keep=[False])
def forward(kernels: Kernels, dtype: torch.dtype, shape: tuple[int, int, int], keep: bool) -> None:
    x, mixture = problem(shape, dtype)
    log_prob, score, shares = forward_of(kernels, x, mixture, keep)
    if shape[0] == 0:
        return
    leaf, wide = x.double().requires_grad_(), [p.double() for p in mixture]
    exact = by_distributions(leaf, *wide)
    assert_close(log_prob, exact.detach(), terms=shape[1])
    if keep:
        assert_close(score, torch.autograd.grad(exact.sum(), leaf)[0], terms=4 * shape[1])
        top, share = shares.double()
        assert_close((math.log(2) * top - share.log()).to(log_prob.dtype), exact.detach(), terms=shape[1])


@suite.case(dtype=DTYPES[:2], components=[3, 130])
def far_points(kernels: Kernels, dtype: torch.dtype, components: int) -> None:
    """No density, and no pull, where all squares overflow; NaN in its own sample alone."""
    x, mixture = problem((4, 2, components), dtype)
    x[1, 0], x[2, 1], x[3, 0] = math.inf, 1e30 if dtype is torch.float32 else 1e200, math.nan
    log_prob, score, _ = forward_of(kernels, x, mixture, keep=True)
    assert log_prob[0].isfinite() and score[0].isfinite().all()
    assert log_prob[1:3].tolist() == 2 * [-math.inf] and (score[1:3] == 0).all()
    assert log_prob[3].isnan() and score[3].isnan().all()


@suite.case(dtype=DTYPES, shape=SHAPES)
@suite.case(dtype=[torch.float32], shape=[(MOST_SLICES * SLICE + 300, 1, 2)])
def backward(kernels: Kernels, dtype: torch.dtype, shape: tuple[int, int, int]) -> None:
    x, mixture = problem(shape, dtype)
    real = real_dtype(dtype)
    _, _, shares = forward_of(kernels, x, mixture, keep=True)
    grad = normal(shape[0], seed=7, dtype=real)
    gradients = [torch.full_like(p, torch.nan) for p in mixture]
    slices = min(-(-shape[0] // SLICE), MOST_SLICES)
    table = table_of(shape, real)
    workspace = torch.full((slices * table.numel(),), torch.nan, dtype=real)
    kernels.launch(
        "led_fast_mixture_log_prob_backward",
        *(grad, x, shares, *gradients, table, workspace, *mixture, *shape, DTYPES.index(dtype)),
    )
    if shape[0] == 0:
        return
    leaves = [p.double().requires_grad_() for p in mixture]
    # The weights as they are: torch.distributions would normalise them.
    total = leaves[2].logsumexp(0)
    exact = by_distributions(x.double(), *leaves) + total
    for ours, true in zip(gradients, torch.autograd.grad(exact, leaves, grad.double()), strict=True):
        assert_close(ours, true, terms=4 * shape[1] + math.isqrt(shape[0]))


suite.wrong("normaliser", "Real(kHalfLog2Pi) * Real(p.dimension)", "Real(kHalfLog2Pi)")
suite.wrong("scale upside down", "exp_of(-log_scale)", "exp_of(log_scale)")
suite.wrong("components counted twice", "k < p.components ? weight : -Real(INFINITY)", "weight")
suite.wrong("table too short", "if (k >= p.stride) return;", "if (k >= p.components) return;")
suite.wrong("beyond the table", "if (k >= p.stride) return;", "if (k > p.stride) return;")
suite.wrong("beyond the samples", "if (sample >= p.samples) return;", "if (sample > p.samples) return;")
suite.wrong("stale sum", "sum *= scale;", "")
suite.wrong("stale pull", "pulls[d] * scale + pull", "pulls[d] + pull")
suite.wrong("last turn alone", "first == 0 ? pull :", "true ? pull :")
suite.wrong("pull by one rate", "- value) * rho)", "- value))")
suite.wrong("one lane's top", "largest = warp_largest(largest);", "")
suite.wrong("wrong lane", "if (d % 32 == lane) pulls[d]", "if (d == lane) pulls[d]")
suite.wrong("pull without density", "pulls[d] = share == 0 ? Real(0) :", "pulls[d] =")
suite.wrong("infinite share", "sum == 0 ? Real(0) : 1 / sum", "1 / sum")
suite.wrong("lowest is infinite", "kLowest = Real(-3.0e38)", "kLowest = -Real(INFINITY)")
suite.wrong("samples counted twice", "r[j] = i < end ?", "r[j] = true ?")
suite.wrong("no cotangent", "grad[i] * shares[p.samples + i]", "shares[p.samples + i]")
suite.wrong("last samples alone", "first == begin ? sum :", "true ? sum :")
suite.wrong("one sum for both", "add(2 + 2 * d, of_scale);", "add(1 + 2 * d, of_scale);")
suite.wrong("first moment", "of_scale += r[j] * u * u;", "of_scale += r[j] * u;")
suite.wrong("one slice", "slice < slices; ++slice", "slice < 1; ++slice")
suite.wrong(
    "overlapping slices",
    "min(begin + slice_size, p.samples)",
    "min(begin + slice_size + 1, p.samples)",
)
suite.wrong("volume left out", "total(2 + 2 * d) - of_weight", "total(2 + 2 * d)")

test_cases = suite.test_cases()
test_launches = suite.test_launches()


@pytest.mark.parametrize("dimension", [2, 16])
def test_components_are_read_side_by_side(dimension: int) -> None:
    rows = suite.traffic(forward, dtype=torch.float32, shape=(2, dimension, 128), keep=False)
    busiest = max(rows, key=lambda row: row.requests)
    assert busiest.kind == "read" and busiest.lanes == 32 * busiest.requests
    assert all(row.units == row.ideal for row in rows if row is busiest or row.kind == "write")
