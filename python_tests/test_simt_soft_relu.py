"""The soft-ReLU CUDA kernels, run on the CPU by the SIMT executor."""

import math
from collections.abc import Callable

import pytest
import torch
from simt import Kernels, Suite

import led_fast
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


@suite.case(dtype=DTYPES, shape=SHAPES, alpha=[ALPHA])
@suite.case(dtype=DTYPES[:2], shape=[(3, 100)], alpha=[1.001, 40.0, 1e6, 1e29])
def inverse(kernels: Kernels, dtype: torch.dtype, shape: tuple[int, int], alpha: float) -> None:
    bend = 1 / (alpha - BETA)
    near = led_fast.soft_relu((U0 + 9 * bend * torch.randn(shape, dtype=torch.float64)), alpha, BETA, U0, T0)[
        0
    ]
    far = 4 * torch.randn(shape, dtype=torch.float64)
    y = torch.where(torch.rand(shape) < 0.5, near, far).to(dtype)
    if 0 not in shape:
        y.view(-1)[:3] = torch.tensor([-1e4, 1e4, -T0])[: y.numel()]
    x = torch.full_like(y, torch.nan)
    log_abs_det = torch.full(shape[:1], torch.nan, dtype=log_dtype(dtype))
    pieces = math.ceil(shape[1] / PIECE)
    workspace = torch.full((shape[0] * pieces,), torch.nan, dtype=torch.float64) if pieces > 1 else None
    kernels.launch(
        "led_fast_soft_relu_inverse",
        *(y, x, log_abs_det, workspace, *shape, alpha, BETA, U0, T0, DTYPES.index(dtype)),
    )
    if 0 in shape:
        return
    rounded = torch.tensor([U0, T0]).tolist() if dtype != torch.float64 else [U0, T0]
    exact, log_exact = led_fast.soft_relu_inverse(y.double(), alpha, BETA, *rounded)
    slope = (alpha - BETA) / alpha * torch.sigmoid((alpha - BETA) * (exact - U0)) + BETA / alpha
    eps = max(torch.finfo(log_abs_det.dtype).eps, 4e-15)
    error = 8 * eps * (1 + exact.abs() + ((y.double() + T0).abs() + bend) / slope)
    error = error + torch.finfo(dtype).eps * exact.abs()
    assert ((x.double() - exact).abs() <= error).all()
    assert ((log_abs_det - log_exact).abs() <= 1e-6 * log_exact.abs() + 4 * eps * shape[1]).all()


@suite.case(dtype=DTYPES, shape=SHAPES, given=["both"])
@suite.case(dtype=[torch.float32], shape=[(3, 100), (1, 1100)], given=["x", "log", "none"])
def inverse_backward(kernels: Kernels, dtype: torch.dtype, shape: tuple[int, int], given: str) -> None:
    y, grad_x = (torch.randn(shape, dtype=torch.float64).to(dtype) for _ in range(2))
    grad_y, grad_log = torch.full_like(y, torch.nan), torch.randn(shape[0], dtype=log_dtype(dtype))
    gradients = (grad_x if given in ("both", "x") else None, grad_log if given in ("both", "log") else None)
    kernels.launch(
        "led_fast_soft_relu_inverse_backward",
        *(y, *gradients, grad_y, *shape, ALPHA, BETA, U0, T0, DTYPES.index(dtype)),
    )
    leaf = y.double().requires_grad_()
    outputs = reference.soft_relu_inverse(leaf, ALPHA, BETA, U0, T0)
    cotangents = [
        torch.zeros_like(output) if gradient is None else gradient.double()
        for output, gradient in zip(outputs, gradients, strict=True)
    ]
    (exact,) = torch.autograd.grad(outputs, leaf, cotangents)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(grad_y.double(), exact, rtol=4 * eps, atol=64 * eps)


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

suite.wrong("inverse: sign of the logarithm", "direction = -1", "direction = 1")
suite.wrong("inverse: one step", "z -= inverse_step<true>(z, w, p).change;", "")
suite.wrong(
    "inverse: two steps in float64", "if constexpr (sizeof(Real) == 8) z -=", "if constexpr (false) z -="
)
suite.wrong(
    "inverse: no exponential start", "(s >= p.s_least) & (w < p.height) ? exponential", "false ? exponential"
)
suite.wrong("inverse: the steps go on to infinity", "w == w_any ?", "true ?")
suite.wrong("inverse: e is that of the last step", "last.e * relative + last.e", "last.e")
suite.wrong("inverse: gradient of the logarithm", "* p.curvature) * reciprocal", "* p.curvature)")

test_cases = suite.test_cases()
test_launches = suite.test_launches()


@pytest.mark.parametrize(
    ("body", "last", "accesses"),
    [
        (forward, {"offsets": (0, 0), "alpha": ALPHA}, 2),
        (backward, {"offsets": (0, 0, 0), "given": "both"}, 3),
        (inverse, {"alpha": ALPHA}, 2),
        (inverse_backward, {"given": "both"}, 3),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_traffic_is_the_least(
    body: Callable[..., None], last: dict[str, object], accesses: int, dtype: torch.dtype
) -> None:
    rows = suite.traffic(body, dtype=dtype, shape=(1, PIECE), **last)
    packs = [row for row in rows if row.bytes == 16]
    assert {row.kind for row in packs} == {"read", "write"}
    assert sum(row.requests * 32 * 16 for row in packs) == PIECE * dtype.itemsize * accesses
    for row in rows:
        assert row.units == row.ideal, f"more {row.space} traffic than needed: {row}"
