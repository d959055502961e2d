"""The soft-ReLU CUDA kernels, run on the CPU by the SIMT executor."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from simt import Kernels, Suite, build

import led_fast
from led_fast import reference

suite = Suite("soft_relu", headers=("common/rows.cuh", "common/reduce.cuh", "common/logarithms.h"))

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]  # by the launchers' dtype code
ALPHA, BETA, U0, T0 = 5.8, 1.0, 0.1, -0.2
PIECE = 8192  # elements of a sample that one block takes
# Empty, one element; rows for 1, 2, 4, 8, 16 and 32 threads, packed and not, with idle threads and idle rows; rows for
# a block and for several with a tail.
SHAPES = [
    (0, 3),
    (2, 0),
    (1, 1),
    (300, 2),
    (9, 7),
    (70, 16),
    (37, 13),
    (9, 40),
    (19, 51),
    (5, 104),
    (3, 1024),
]
SHAPES += [(2, 1025), (1, 1056), (2, PIECE + 40), (1, PIECE + 41)]


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
    if workspace is not None:  # a block has a piece, in elements, whatever its accesses are
        of_pieces = [
            reference.soft_relu(piece.double(), alpha, BETA, U0, T0)[1] for piece in x.split(PIECE, 1)
        ]
        torch.testing.assert_close(
            workspace.view(-1, pieces), torch.stack(of_pieces, 1), rtol=1e-6, atol=2 * rounding
        )


@suite.case(dtype=DTYPES[1:], shape=[(2, 1000)], near=[0.3, 3.0, 100.0])
def forward_is_as_good_as_plain_float32(
    kernels: Kernels, dtype: torch.dtype, shape: tuple[int, int], near: float
) -> None:
    x = (near * torch.randn(shape, dtype=torch.float64)).to(dtype)
    y, log_abs_det = torch.empty_like(x), torch.empty(shape[0])
    kernels.launch(
        "led_fast_soft_relu_forward",
        *(x, y, log_abs_det, None, *shape, ALPHA, BETA, U0, T0, DTYPES.index(dtype)),
    )
    y_exact, log_exact = reference.soft_relu(x.double(), ALPHA, BETA, U0, T0)
    y_plain, log_plain = reference.soft_relu(x.float(), ALPHA, BETA, U0, T0)
    eps = torch.finfo(torch.float32).eps

    def error(value: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
        return (value.double() - exact).abs().max()

    assert error(y, y_exact) <= 2 * error(y_plain.to(dtype), y_exact)
    assert error(log_abs_det, log_exact) <= 2 * error(log_plain, log_exact) + 2 * eps * log_exact.abs().max()


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


# (samples, places, features, run): empty, one element, channels-last with a tail of a tile and of chunks of 256 outer
# indices, runs of a plane, more than one piece of a sample, more than one chunk of 8192 / run samples.
LAYOUTS = [
    (0, 1, 3, 1),
    (1, 1, 1, 1),
    (9, 1, 7, 1),
    (3, 100, 40, 1),
    (3, 1, 5, 7),
    (2, 1, 3, 400),
    (2, 1, 2, 4100),
]


def features_of(
    layout: tuple[int, int, int, int], dtype: torch.dtype, spread: float = 1.0
) -> list[torch.Tensor]:
    """ratio, sharpness, u0 and t0: ratios on both sides of 1."""
    random = torch.randn(4, layout[2], dtype=torch.float64)
    return [
        p.to(dtype) for p in ((spread * random[0]).exp(), 3 * (0.5 * random[1]).exp(), random[2], random[3])
    ]


@suite.case(dtype=DTYPES, layout=LAYOUTS, inverted=[False, True], spread=[1.0])
@suite.case(dtype=[torch.float32], layout=[(1, 1, 2, 4100), (2, 1, 80, 12)], inverted=[False], spread=[16.0])
@suite.case(dtype=DTYPES, layout=[(3, 1, 5, 7)], inverted=[False, True], spread=[1.0], number=[torch.float64])
def per_feature(
    kernels: Kernels,
    dtype: torch.dtype,
    layout: tuple[int, int, int, int],
    inverted: bool,
    spread: float,
    number: torch.dtype = torch.float32,
) -> None:
    rows, places, features, run = layout
    row_size = places * features * run
    x = (3 * torch.randn(layout, dtype=torch.float64)).to(dtype)
    parameters, wide = features_of(layout, number, spread), number == torch.float64
    y, log_abs_det = torch.full_like(x, torch.nan), torch.full((rows,), torch.nan, dtype=log_dtype(dtype))
    workspace = torch.full((rows * math.ceil(row_size / PIECE),), torch.nan, dtype=torch.float64)
    numbers = torch.full((20, features), torch.nan, dtype=log_dtype(dtype))
    kernels.launch(
        "led_fast_soft_relu_per_feature",
        *(x, y, log_abs_det, workspace, *parameters, wide),
        *(numbers, rows, row_size, features, run, inverted),
        DTYPES.index(dtype),
    )
    exact, logs = torch.ops.led_fast.soft_relu_per_feature(
        x.double().view(-1, features, run), *(p.double() for p in parameters), inverted
    )
    slack = 8 if inverted else max(1.0, parameters[0].max().item())  # 1 / L', or L' where it is larger
    eps = max(torch.finfo(dtype).eps, 8 * torch.finfo(log_dtype(dtype)).eps)
    torch.testing.assert_close(y.double(), exact.view(layout), rtol=4 * eps, atol=8 * slack * eps)
    rounding = slack * torch.finfo(log_abs_det.dtype).eps * (row_size + 8)
    torch.testing.assert_close(
        log_abs_det.double(), logs.view(rows, places).sum(1), rtol=1e-6, atol=2 * rounding
    )


@suite.case(dtype=DTYPES, layout=LAYOUTS, inverted=[False, True])
@suite.case(dtype=DTYPES, layout=[(3, 1, 5, 7)], inverted=[False, True], number=[torch.float64])
def per_feature_backward(
    kernels: Kernels,
    dtype: torch.dtype,
    layout: tuple[int, int, int, int],
    inverted: bool,
    number: torch.dtype = torch.float32,
) -> None:
    rows, places, features, run = layout
    x, grad_y = ((2 * torch.randn(layout, dtype=torch.float64)).to(dtype) for _ in range(2))
    grad_log = torch.randn(rows, dtype=log_dtype(dtype))
    parameters, wide = features_of(layout, number), number == torch.float64
    grad_x, grads = (torch.full_like(x, torch.nan), torch.full((4, features), torch.nan, dtype=number))
    chunk = 256 if run == 1 else max(1, 8192 // run)
    workspace = torch.full((4 * features * math.ceil(rows * places / chunk),), torch.nan, dtype=torch.float64)
    numbers = torch.full((20, features), torch.nan, dtype=log_dtype(dtype))
    kernels.launch(
        "led_fast_soft_relu_per_feature_backward",
        *(
            x,
            grad_y,
            grad_log,
            grad_x,
            workspace,
            *parameters,
            wide,
            numbers,
            grads,
        ),
        *(rows, places * features * run, features, run, inverted, DTYPES.index(dtype)),
    )
    if rows == 0:
        return
    exact_x, exact = torch.ops.led_fast.soft_relu_per_feature_backward(
        x.double().view(-1, features, run),
        grad_y.double().view(-1, features, run),
        grad_log.double().repeat_interleave(places),
        *(p.double() for p in parameters),
        inverted,
    )
    eps, log_eps = torch.finfo(dtype).eps, torch.finfo(log_dtype(dtype)).eps
    scale = exact_x.abs().max().clamp(min=1)
    assert (grad_x.double() - exact_x.view(layout)).abs().max() <= 8 * (eps + 8 * log_eps) * scale
    slack = 400 * log_eps + torch.finfo(number).eps  # grads are rounded to the parameters' dtype
    assert ((grads - exact).abs().amax(1) <= slack * exact.abs().amax(1).clamp(min=1)).all()


suite.wrong(
    "per feature: off-by-one row",
    "if (share.row < rows) {\n    const T*",
    "if (share.row <= rows) {\n    const T*",
)
suite.wrong("per feature: another feature", "i / run % features, features", "i % features, features")
suite.wrong("per feature: too many factors", "if (shares > 16) {", "if (shares > 1600) {")
suite.wrong("per feature: row of a tile", "* features + feature) * run", "* features + lane) * run")
suite.wrong(
    "per feature: overlapping chunks", "min(begin + chunk_size, outer)", "min(begin + chunk_size + 1, outer)"
)
suite.wrong("per feature: missing chunks", "c < chunks; ++c", "c < chunks - 1; ++c")
suite.wrong(
    "per feature: missing warps", "for (int w = 0; w < kWarps; ++w)", "for (int w = 0; w < kWarps - 1; ++w)"
)
suite.wrong("per feature: past the features", "if (feature < features) {", "if (feature <= features) {")
suite.wrong(
    "per feature: sample of a place", "grad_log_abs_det[at / places]", "grad_log_abs_det[at / chunk_size]"
)
suite.wrong(
    "per feature: no mirror image", "const bool mirrored = ratio > 1;", "const bool mirrored = false;"
)
suite.wrong("per feature: gradient to u0", "to.sums[2] = gx,", "to.sums[2] = -gx,")

suite.wrong(
    "overlapping pieces",
    "min(begin + accesses_of_piece, accesses)",
    "min(begin + accesses_of_piece + 1, accesses)",
)
suite.wrong(
    "pieces of elements, not of packs", "kPieceSize / N, parts);\n  LogSum", "kPieceSize, parts);\n  LogSum"
)
suite.wrong("piece of another row", "(blockIdx.x - row * parts)", "(blockIdx.x - row)")
suite.wrong("rows of a warp", "(threadIdx.x >> parts), 0,", "(threadIdx.x >> 5), 0,")
suite.wrong("rows of a block", "(kThreads >> parts) +", "(kThreads >> 5) +")
suite.wrong("width of a row", "const int threads = 1 << parts,", "const int threads = 2 << parts,")
suite.wrong(
    "fewer threads than the sum takes", "accesses > most << log2) ++log2;", "accesses > most) log2 = 6;"
)
suite.wrong("sum of another row's threads", "int offset = threads / 2; offset", "int offset = 16; offset")
suite.wrong("sum of half the threads", "int offset = threads / 2; offset", "int offset = threads / 4; offset")
suite.wrong("sum of the first thread", "sum = group_sum(sum, share.threads);", "")
suite.wrong(
    "off-by-one row",
    "if (share.row < rows) {\n    const int64_t row",
    "if (share.row <= rows) {\n    const int64_t row",
)
suite.wrong("off-by-one row, backward", "if (share.row >= rows) return;", "if (share.row > rows) return;")
suite.wrong(
    "off-by-one row, sum",
    "share.row >= rows) return;\n  if (kPieces",
    "share.row > rows) return;\n  if (kPieces",
)
suite.wrong(
    "missing tail",
    "i < row + share.end; i += share.threads) {\n      Pack",
    "i + share.threads <= row + share.end; i += share.threads) {\n      Pack",
)
suite.wrong(
    "missing tail, backward",
    "i < row + share.end; i += share.threads) {\n    Pack",
    "i + share.threads <= row + share.end; i += share.threads) {\n    Pack",
)
suite.wrong("missing pieces", "i < pieces; i += kThreads", "i < pieces - 1; i += kThreads")
suite.wrong("wrong thread", "if (share.thread > 0 ||", "if (share.thread + 1 < share.threads ||")
suite.wrong("one cell for all pieces", "workspace[blockIdx.x] = sum;", "workspace[share.row] = sum;")
suite.wrong("wrong sign", "sum -= log1p[k];", "sum += log1p[k];")
suite.wrong("missing logarithm", "return sum + log_of(product);", "return sum;")
suite.wrong("product underflows", "if (factors + N > safe_factors) {", "if (factors + N > 64) {")
suite.wrong("product of a pack underflows", "if (N == 1 || N <= safe_factors) product", "if (true) product")
suite.wrong("factors are not counted", "factors += N;", "factors += 1;")
suite.wrong("last coefficient of log1p", "p * e + 9.9999994e-1f", "p * e + 9.9994e-1f")
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


# Elements of an H100's multiprocessor and clock: what it may read or write in its L2 cache, and its share of memory.
L2_SECTORS, MEMORY_BYTES = 2, 14.5


@pytest.mark.parametrize("body", [forward, backward])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(512, 2), (512, 3), (512, 7), (256, 8), (256, 16), (64, 51), (64, 63)])
def test_narrow_rows_are_bound_by_memory(
    body: Callable[..., None], dtype: torch.dtype, shape: tuple[int, int]
) -> None:
    last = {"alpha": ALPHA, "offsets": (0, 0)} if body is forward else {"offsets": (0, 0, 0), "given": "both"}
    rows = suite.traffic(body, dtype=dtype, shape=shape, **last)
    tensors = 2 if body is forward else 3
    memory = tensors * math.prod(shape) * dtype.itemsize + shape[0] * log_dtype(dtype).itemsize
    written = sum(row.units for row in rows if row.kind == "write" and row.space == "global")
    assert 32 * written >= math.prod(shape) * dtype.itemsize
    assert written / L2_SECTORS <= memory / MEMORY_BYTES


@pytest.mark.parametrize("body", [forward, backward])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_one_access_are_coalesced(body: Callable[..., None], dtype: torch.dtype) -> None:
    last = {"alpha": ALPHA, "offsets": (0, 0)} if body is forward else {"offsets": (0, 0, 0), "given": "both"}
    for row in suite.traffic(body, dtype=dtype, shape=(512, 16 // dtype.itemsize), **last):
        assert row.units == row.ideal, f"more {row.space} traffic than needed: {row}"


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
@pytest.mark.parametrize("flags", [["-ffp-contract=off"], ["-mfma", "-ffp-contract=fast"]])
def test_log1p_in_float32(flags: list[str], tmp_path: Path) -> None:
    """Against long double, on a million numbers between 0 and 1 and on small ones, as a CPU and a GPU compute it."""
    source = tmp_path / "log1p.cpp"
    source.write_text(
        """
        #include <algorithm>
        #include <cmath>
        #include <cstdio>
        #include "common/logarithms.h"
        int main() {
          long double relative = 0;
          const auto look = [&](float e) {
            const long double exact = log1pl((long double)e);
            relative = std::max(relative, fabsl(led::log1p_unit(e) - exact) / exact);
          };
          for (int i = 1; i <= 1000000; ++i) look(float(i / 1e6));
          for (float e = 0x1p-126f; e < 1; e *= 1.37f) look(e);
          if (led::log1p_unit(0.0f) != 0) return 1;
          std::printf("%Lg", relative);
        }
        """
    )
    build.run(
        ["g++", "-std=c++17", "-O2", *flags, "-I", str(build.CSRC), str(source), "-o", str(tmp_path / "a")]
    )
    error = float(build.run([str(tmp_path / "a")]))
    eps = torch.finfo(torch.float32).eps
    assert eps / 8 < error <= 2 * eps, f"a relative error of {error / eps:.2f} eps"
