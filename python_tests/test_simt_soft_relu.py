"""The soft-ReLU CUDA kernels, run on the CPU by the SIMT executor."""

import math
from collections.abc import Callable

import pytest
import torch
from simt import Kernels, Suite

from led_fast import reference

suite = Suite("soft_relu")

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]  # by the launchers' dtype code
ALPHA, BETA, U0, T0 = 5.8, 1.0, 0.1, -0.2
PIECE = 8192  # elements of a sample that one block takes
# Empty, one element, odd, a warp's whole row, a block's, and several blocks with a tail, packed and not.
SHAPES = [(0, 3), (2, 0), (1, 1), (9, 7), (3, 1024), (2, 1025), (1, 1056), (2, PIECE + 40), (1, PIECE + 41)]


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    eps = torch.finfo(dtype).eps
    return {"rtol": 4 * eps, "atol": 16 * eps}  # terms of a gradient reach 8 before they cancel


def log_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype is torch.float64 else torch.float32


def shifted(x: torch.Tensor, offset: int) -> torch.Tensor:
    """A contiguous copy whose first element lies `offset` elements behind a 64-byte boundary."""
    return torch.cat([x.new_zeros(offset), x.flatten()])[offset:].view(x.shape)


@suite.case(dtype=DTYPES, shape=SHAPES, offsets=[(0, 0)], alpha=[ALPHA])
@suite.case(dtype=DTYPES, shape=[(3, 48), (2, 1104)], offsets=[(1, 0), (0, 1)], alpha=[ALPHA])
@suite.case(dtype=[torch.float32], shape=[(2, 1100)], offsets=[(0, 0)], alpha=[1.5, 1e5, 1e29])
def forward(
    kernels: Kernels, dtype: torch.dtype, shape: tuple[int, int], offsets: tuple[int, int], alpha: float
) -> None:
    x = shifted((4 * torch.randn(shape, dtype=torch.float64)).to(dtype), offsets[0])
    y = shifted(torch.full_like(x, torch.nan), offsets[1])
    log_abs_det = torch.full(shape[:1], torch.nan, dtype=log_dtype(dtype))
    pieces = math.ceil(shape[1] / PIECE)
    workspace = torch.full((shape[0] * pieces,), torch.nan, dtype=torch.float64) if pieces > 1 else None
    kernels.launch(
        "led_fast_soft_relu_forward",
        *(x, y, log_abs_det, workspace, *shape, alpha, BETA, U0, T0, DTYPES.index(dtype)),
    )
    if 0 in shape:
        return
    y_exact, log_exact = reference.soft_relu(x.double(), alpha, BETA, U0, T0)
    torch.testing.assert_close(y.double(), y_exact, **tolerance(dtype))
    rounding = torch.finfo(log_abs_det.dtype).eps * shape[1]
    torch.testing.assert_close(log_abs_det.double(), log_exact, rtol=1e-6, atol=2 * rounding)


@suite.case(dtype=DTYPES, shape=SHAPES, offsets=[(0, 0, 0)], given=["both"])
@suite.case(
    dtype=[torch.float32], shape=[(3, 100), (1, 1100)], offsets=[(0, 0, 0)], given=["y", "log", "none"]
)
@suite.case(
    dtype=DTYPES, shape=[(3, 48), (2, 1104)], offsets=[(1, 0, 0), (0, 1, 0), (0, 0, 1)], given=["both"]
)
def backward(
    kernels: Kernels, dtype: torch.dtype, shape: tuple[int, int], offsets: tuple[int, int, int], given: str
) -> None:
    x, grad_y, grad_x = (
        shifted(torch.randn(shape, dtype=torch.float64).to(dtype), offset) for offset in offsets
    )
    grad_x.fill_(torch.nan)
    grad_log = torch.randn(shape[0], dtype=log_dtype(dtype))
    gradients = (grad_y if given in ("both", "y") else None, grad_log if given in ("both", "log") else None)
    kernels.launch(
        "led_fast_soft_relu_backward",
        *(x, *gradients, grad_x, *shape, ALPHA, BETA, U0, DTYPES.index(dtype)),
    )
    leaf = x.double().requires_grad_()
    outputs = reference.soft_relu(leaf, ALPHA, BETA, U0, T0)
    cotangents = [
        torch.zeros_like(output) if gradient is None else gradient.double()
        for output, gradient in zip(outputs, gradients, strict=True)
    ]
    (exact,) = torch.autograd.grad(outputs, leaf, cotangents)
    torch.testing.assert_close(grad_x.double(), exact, **tolerance(dtype))


suite.wrong(
    "overlapping pieces", "min(begin + kPieceSize, row_size)", "min(begin + kPieceSize + 1, row_size)"
)
suite.wrong("off-by-one row", "if (piece.row < rows) {", "if (piece.row <= rows) {")
suite.wrong("off-by-one row, backward", "if (piece.row >= rows) return;", "if (piece.row > rows) return;")
suite.wrong("missing tail", "i < piece.end;", "i + kGroup * N <= piece.end;")
suite.wrong("missing tail, backward", "i < offset + piece.end;", "i + kGroup * N <= offset + piece.end;")
suite.wrong("missing pieces", "i < pieces; i += 32", "i < pieces - 1; i += 32")
suite.wrong("wrong thread", "threadIdx.x % kGroup == 0 &&", "threadIdx.x % kGroup == kGroup - 1 &&")
suite.wrong(
    "one cell for all pieces",
    "workspace[piece.row * pieces + piece.index] = sum",
    "workspace[piece.row] = sum",
)
suite.wrong("wrong sign", "sum -= terms.log1p;", "sum += terms.log1p;")
suite.wrong("missing logarithm", "return sum + log_of(product);", "return sum;")
suite.wrong("product underflows", "factors == safe_factors", "factors == 64")
suite.wrong("misaligned y", "aligned(x) && aligned(y)", "aligned(x)")
suite.wrong("misaligned x, backward", "aligned(x) && aligned(grad_y) &&", "aligned(grad_y) &&")

test_cases = suite.test_cases()
test_launches = suite.test_launches()


@pytest.mark.parametrize("body", [forward, backward])
@pytest.mark.parametrize("dtype", DTYPES)
def test_traffic_is_the_least(body: Callable[..., None], dtype: torch.dtype) -> None:
    last = {"offsets": (0, 0), "alpha": ALPHA} if body is forward else {"offsets": (0, 0, 0), "given": "both"}
    rows = suite.traffic(body, dtype=dtype, shape=(1, PIECE), **last)
    packs = [row for row in rows if row.bytes == 16]
    assert {row.kind for row in packs} == {"read", "write"}
    assert sum(row.requests * 32 * 16 for row in packs) == PIECE * dtype.itemsize * (
        2 if body is forward else 3
    )
    for row in rows:
        assert row.units == row.ideal, f"more {row.space} traffic than needed: {row}"
