"""The staircase's CUDA kernels, run on the CPU by the SIMT executor."""

import math

import pytest
import torch
from simt import Kernels, Suite
from staircase_cases import log_derivative_of, normal, parameters_of

from led_fast import reference

suite = Suite("staircase", headers=("common/rows.cuh",))

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]  # by the launchers' dtype code
PIECE, SLICE = 2048, 512  # elements of a sample, and of a feature, that one block takes
# Samples, features, inner elements: empty, one element, samples for 1, 2, 8 and 32 threads with idle ones, a block's,
# several blocks with a tail.
SHAPES = [
    (0, 3, 2),
    (1, 1, 1),
    (9, 3, 1),
    (130, 1, 7),
    (5, 3, 9),
    (2, 2, 256),
    (3, 3, 171),
    (1, 1, PIECE + 40),
]


def real_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype is torch.float64 else torch.float32


def tolerance(dtype: torch.dtype, terms: int = 1) -> dict[str, float]:
    eps = torch.finfo(dtype).eps
    return {"rtol": 16 * eps, "atol": 32 * eps * terms}


def parameters(kind: str, features: int, steps: int, dtype: torch.dtype) -> list[torch.Tensor]:
    return [p.to(real_dtype(dtype)) for p in parameters_of(kind, features, steps)]


def in_memory(x: torch.Tensor, interleaved: bool) -> torch.Tensor:
    return (x.transpose(1, 2) if interleaved else x).contiguous()


def workspace_of(shape: tuple[int, int, int]) -> torch.Tensor | None:
    pieces = math.ceil(shape[1] * shape[2] / PIECE)
    return torch.full((shape[0] * pieces,), torch.nan, dtype=torch.float64) if pieces > 1 else None


@suite.case(dtype=DTYPES, shape=SHAPES, steps=[3], interleaved=[False])
@suite.case(dtype=[torch.float32], shape=[(3, 5, 7), (1, 3, 800)], steps=[1, 9], interleaved=[False, True])
def forward(
    kernels: Kernels, dtype: torch.dtype, shape: tuple[int, int, int], steps: int, interleaved: bool
) -> None:
    x, values = normal(*shape, dtype=dtype), parameters("gentle", shape[1], steps, dtype)
    given = in_memory(x, interleaved)
    y, log_abs_det = (
        torch.full_like(given, torch.nan),
        torch.full(shape[:1], torch.nan, dtype=real_dtype(dtype)),
    )
    kernels.launch(
        "led_fast_staircase_forward",
        *(given, y, log_abs_det, workspace_of(shape), *values, *shape, steps, interleaved),
        DTYPES.index(dtype),
    )
    if 0 in shape:
        return
    exact = reference.staircase(x.double(), *(v.double() for v in values))
    torch.testing.assert_close(y.double(), in_memory(exact[0], interleaved), **tolerance(dtype))
    torch.testing.assert_close(
        log_abs_det.double(), exact[1], **tolerance(log_abs_det.dtype, terms=shape[1] * shape[2])
    )


@suite.case(dtype=DTYPES, shape=SHAPES, steps=[3], interleaved=[False], keep=[True], kind=["gentle"])
@suite.case(
    dtype=[torch.float32],
    shape=[(3, 5, 7), (1, 3, 800)],
    steps=[2],
    interleaved=[True],
    keep=[False],
    kind=["steep"],
)
@suite.case(
    dtype=DTYPES[:2],
    shape=[(40, 2, 1)],
    steps=[7],
    interleaved=[False],
    keep=[True],
    kind=["cliffs", "trained"],
)
def inverse(
    kernels: Kernels,
    dtype: torch.dtype,
    shape: tuple[int, int, int],
    steps: int,
    interleaved: bool,
    keep: bool,
    kind: str,
) -> None:
    values = parameters(kind, shape[1], steps, dtype)
    wide = [v.double() for v in values]
    y = (reference.staircase(normal(*shape), *wide)[0] * 1.2).to(dtype)
    given = in_memory(y, interleaved)
    x, log_abs_det = (
        torch.full_like(given, torch.nan),
        torch.full(shape[:1], torch.nan, dtype=real_dtype(dtype)),
    )
    kept = torch.full_like(given, torch.nan, dtype=real_dtype(dtype)) if keep else None
    table = torch.full((shape[1] * (2 * (6 * steps + 2) + 3),), torch.nan, dtype=real_dtype(dtype))
    kernels.launch(
        "led_fast_staircase_inverse",
        *(given, x, kept, log_abs_det, workspace_of(shape), table, *values, *shape, steps, interleaved),
        DTYPES.index(dtype),
    )
    if 0 in shape:
        return
    if keep:
        assert torch.equal(kept.to(dtype), x)
    precise = kept if keep else x
    found = (precise.transpose(1, 2) if interleaved else precise).double()
    # The staircase of x is y, up to roundings of all terms and of x itself.
    again = reference.staircase(found, *wide)[0]
    eps = torch.finfo(real_dtype(dtype)).eps
    last = found.movedim(1, -1)
    logs = log_derivative_of(last, wide)
    spread = (y.double().abs().movedim(1, -1) + wide[1].sum(1)) + logs.exp() * last.abs()
    assert ((again - y.double()).abs().movedim(1, -1) <= 6 * eps * spread).all()
    if kind == "gentle":
        torch.testing.assert_close(
            log_abs_det.double(),
            -logs.flatten(1).sum(1),
            **tolerance(log_abs_det.dtype, terms=shape[1] * shape[2]),
        )


BOTH = {"staircase": False, "inverse": True}


@suite.case(dtype=DTYPES, shape=SHAPES, steps=[3], interleaved=[False], of=["staircase"], given=["both"])
@suite.case(
    dtype=DTYPES[:2],
    shape=[(5, 2, 3), (1, 2, SLICE + 7)],
    steps=[18],
    interleaved=[True],
    of=BOTH,
    given=["both"],
)
@suite.case(
    dtype=[torch.float32],
    shape=[(3, 2, 150)],
    steps=[2],
    interleaved=[False],
    of=BOTH,
    given=["value", "log", "none"],
)
def backward(
    kernels: Kernels,
    dtype: torch.dtype,
    shape: tuple[int, int, int],
    steps: int,
    interleaved: bool,
    of: str,
    given: str,
) -> None:
    x, values = normal(*shape, dtype=dtype), parameters("gentle", shape[1], steps, dtype)
    g, grad_log = normal(*shape, seed=7, dtype=dtype), normal(shape[0], seed=8, dtype=real_dtype(dtype))
    memory = in_memory(x, interleaved)
    grad_x = torch.full_like(memory, torch.nan)
    grads = [torch.full_like(v, torch.nan) for v in values]
    slices = math.ceil(shape[0] * shape[2] / SLICE)
    kernels.launch(
        "led_fast_staircase_backward",
        memory,
        in_memory(g, interleaved) if given in ("both", "value") else None,
        grad_log if given in ("both", "log") else None,
        *(grad_x, *grads, torch.full((shape[1] * slices * (3 * steps + 1),), torch.nan, dtype=torch.float64)),
        *(*values, *shape, steps, interleaved, BOTH[of], DTYPES.index(dtype)),
    )
    if 0 in shape:
        return
    g = g if given in ("both", "value") else torch.zeros_like(g)
    grad_log = grad_log if given in ("both", "log") else torch.zeros_like(grad_log)
    leaves = [v.double().requires_grad_() for v in (x, *values)]
    outputs = reference.staircase(*leaves)
    if of == "inverse":
        leaves[0] = outputs[0].detach().requires_grad_()
        outputs = reference.staircase_inverse(*leaves)
    exact = torch.autograd.grad(outputs, leaves, [g.double(), grad_log.double()])
    torch.testing.assert_close(grad_x.double(), in_memory(exact[0], interleaved), **tolerance(dtype))
    for ours, true in zip(grads, exact[1:], strict=True):
        torch.testing.assert_close(
            ours.double(), true, **tolerance(ours.dtype, terms=4 + math.isqrt(shape[0] * shape[2]))
        )


suite.wrong(
    "overlapping pieces",
    "min(begin + accesses_of_piece, accesses)",
    "min(begin + accesses_of_piece + 1, accesses)",
)
suite.wrong("missing pieces", "i < pieces; i += kThreads", "i < pieces - 1; i += kThreads")
suite.wrong("one cell for all pieces", "workspace[blockIdx.x] = sum;", "workspace[share.row] = sum;")
suite.wrong("wrong thread", "if (share.thread > 0 ||", "if (share.thread + 1 < share.threads ||")
suite.wrong("rows of a block", "(kThreads >> parts) +", "(kThreads >> 5) +")
suite.wrong("width of a sample", "const int threads = 1 << parts,", "const int threads = 2 << parts,")
suite.wrong(
    "wrong feature", "interleaved ? i % features : i / inner", "interleaved ? i % features : i % features"
)
suite.wrong("wrong interleaving", "position * features + feature :", "feature * inner + position :")
suite.wrong("derivative cancels", "exp_of(x) * r * r}", "(1 - value * value) * 2}")
suite.wrong("sign of tanh", "w < 0 ? -value : value", "value")
suite.wrong("ties share a rank", "other < mine || (other == mine && j < i)", "other < mine && j < i")
suite.wrong("missing place", "values[1 + middle] <= y", "values[middle] <= y")
suite.wrong(
    "no upper end",
    "places[count + 1] = values[count + 1] = Real(INFINITY);",
    "places[count + 1] = values[count + 1] = 0;",
)
suite.wrong("log of the forward map", "sum -= log_of(derivative);", "sum += log_of(derivative);")
suite.wrong("ends too early", "const bool ends = !(far & wrong);", "const bool ends = true;")
suite.wrong(
    "derivative one step late", "at.derivative - at.curvature * last;", "at.derivative + at.curvature * last;"
)
suite.wrong("rounds away the last step", "s.x = ends ? s.x + last :", "s.x = ends ? s.x - last :")
suite.wrong(
    "bracket turned round", "s.low = residual > 0 ? s.x : s.low;", "s.low = residual < 0 ? s.x : s.low;"
)
suite.wrong(
    "sums of the last group only", "target[3 * first + threadIdx.x] = sum;", "target[threadIdx.x] = sum;"
)
suite.wrong("one warp's sums", "w < kSliceWarps; ++w", "w < 1; ++w")
suite.wrong("missing slices", "slice < slices; slice += 32", "slice < slices - 1; slice += 32")
suite.wrong("seed of the inverse", "(kInverse ? -h[j] : h[j]) / derivative[j]", "h[j] / derivative[j]")
suite.wrong("sign of the inverse's gradient", "T(kInverse ? -g[j] : out[j])", "T(kInverse ? g[j] : out[j])")
suite.wrong("off-by-one feature", "if (feature >= p.features) return;", "if (feature > p.features) return;")
suite.wrong("beyond the slice", "if (i < count) grad_x[", "if (i <= count) grad_x[")

test_cases = suite.test_cases()
test_launches = suite.test_launches()


@pytest.mark.parametrize("interleaved", [False, True])
def test_elements_are_read_and_written_side_by_side(interleaved: bool) -> None:
    rows = suite.traffic(forward, dtype=torch.float32, shape=(1, 4, 256), steps=3, interleaved=interleaved)
    writes = [
        row
        for row in rows
        if row.kind == "write" and row.space == "global" and row.lanes == 32 * row.requests
    ]
    assert writes and all(row.units == row.ideal for row in writes)
