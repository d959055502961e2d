"""csrc/perpendicular/cuda.cu, run on the CPU by the SIMT executor."""

import math

import pytest
import torch
from simt import Kernels, Suite, build
from simt.library import SimtError
from torch import Tensor

suite = Suite("perpendicular")
SOURCE = build.kernel_source("perpendicular")

DTYPES = [torch.float64, torch.float32]  # in the order of the dtype codes


def outputs(samples: int, pieces: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Workspace, norm and coefficient, to be filled."""
    workspace = torch.full((samples * pieces * 3,), torch.nan, dtype=torch.float64)
    return workspace, *torch.full((2, samples), torch.nan, dtype=dtype).unbind()


def pieces_of(size: tuple[int, int], stride: int, dilation: int, dtype: torch.dtype) -> int:
    """Blocks of 128 threads for the channels of one group: a thread has 32 bytes of a column."""
    period = min(math.lcm(stride, dilation), size[0])
    strips = math.ceil(math.ceil(size[0] / period) * dtype.itemsize / 32) * period * size[1]
    return math.ceil(strips / 128)


def expected(x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    x, u = x.double().flatten(1), u.double().flatten(1)
    square = u.square().sum(1)
    coefficient = torch.where(square > 0, (u * x).sum(1) / square, 0)
    return (x - coefficient[:, None] * u).norm(dim=1), coefficient


def check(norm: Tensor, coefficient: Tensor, x: Tensor, u: Tensor) -> None:
    wanted_norm, wanted_coefficient = expected(x, u)
    tolerance = 100 * torch.finfo(x.dtype).eps
    scale = x.double().flatten(1).norm(dim=1).max().item()
    torch.testing.assert_close(norm.double(), wanted_norm, atol=tolerance * scale, rtol=0)
    torch.testing.assert_close(coefficient.double(), wanted_coefficient, atol=tolerance, rtol=tolerance)


@suite.case(dtype=DTYPES, size=[1, 33, 2048, 5001, 5000], parallel=[False, True])
def norm_to(kernels: Kernels, dtype: torch.dtype, size: int, parallel: bool) -> None:
    u = torch.randn(9, size, dtype=dtype)
    x = 3 * u if parallel else torch.randn_like(u) + u
    u[4] = 0
    workspace, norm, coefficient = outputs(9, -(-size // 2048), dtype)
    kernels.launch(
        "led_fast_perpendicular_norm_to", x, u, workspace, norm, coefficient, 9, size, DTYPES.index(dtype)
    )
    check(norm, coefficient, x, u)


@suite.case(size=[70000])  # more pieces than a warp has lanes
def norm_to_many_pieces(kernels: Kernels, size: int) -> None:
    u = torch.randn(1, size) * torch.linspace(0, 3, size)
    x = torch.randn_like(u) + u.abs()
    workspace, norm, coefficient = outputs(1, -(-size // 2048), torch.float32)
    kernels.launch("led_fast_perpendicular_norm_to", x, u, workspace, norm, coefficient, 1, size, 1)
    check(norm, coefficient, x, u)


# (samples, groups, channels, outs), (height, width), kernel, stride, padding, dilation
GEOMETRIES = {
    "dcgan": ((2, 1, 3, 5), (18, 17), (4, 4), (2, 2), (1, 1), (1, 1)),
    "dilated": ((1, 1, 2, 3), (9, 11), (3, 2), (2, 3), (2, 0), (2, 2)),
    "grouped": ((2, 3, 1, 2), (7, 5), (3, 3), (1, 1), (1, 1), (1, 1)),
    "sparse": ((1, 1, 4, 2), (7, 7), (1, 1), (3, 3), (0, 0), (1, 1)),
    "large": ((1, 1, 4, 12), (8, 8), (10, 10), (1, 1), (2, 2), (1, 1)),  # weights in two portions
    "block": ((1, 1, 3, 2), (32, 32), (4, 4), (2, 2), (1, 1), (1, 1)),  # a row of pixels a warp
    "tall": (
        (1, 2, 2, 3),
        (70, 5),
        (5, 3),
        (1, 2),
        (3, 1),
        (1, 1),
    ),  # strips in the middle of an image, odd taps
    "coprime": ((1, 1, 2, 3), (41, 20), (5, 3), (2, 3), (4, 2), (3, 2)),  # cells of a strip three apart
    "few rows": ((2, 1, 2, 2), (11, 9), (2, 2), (3, 4), (0, 3), (5, 3)),  # less than a period
    "far": ((1, 1, 3, 2), (5, 6), (2, 2), (1, 1), (4, 3), (1, 1)),  # cells that see padding alone
}


@suite.case(dtype=DTYPES, name=list(GEOMETRIES), keep_u=[False, True])
def norm(kernels: Kernels, dtype: torch.dtype, name: str, keep_u: bool) -> None:
    (samples, groups, channels, outs), size, kernel, stride, padding, dilation = GEOMETRIES[name]
    x = torch.randn(samples, groups * channels, *size, dtype=dtype)
    weight = torch.randn(groups * outs, channels, *kernel, dtype=dtype)
    t = torch.nn.functional.conv2d(x, weight, None, stride, padding, dilation, groups)
    u = torch.full_like(x, torch.nan) if keep_u else None
    pieces = pieces_of(size, stride[0], dilation[0], dtype) * groups
    workspace, norm, coefficient = outputs(samples, pieces, dtype)
    kernels.launch(
        "led_fast_perpendicular_norm",
        *(
            x,
            weight,
            t,
            workspace,
            norm,
            coefficient,
            u,
            samples,
            groups,
            channels,
            outs,
            *size,
            *t.shape[2:],
        ),
        *(*kernel, *stride, *padding, *dilation, DTYPES.index(dtype)),
    )
    wide = x.double(), weight.double(), t.double()
    wanted = torch.nn.grad.conv2d_input(x.shape, wide[1], wide[2], stride, padding, dilation, groups)
    check(norm, coefficient, x, wanted)
    if keep_u:
        torch.testing.assert_close(
            u.double(), wanted, atol=1e-4 if dtype == torch.float32 else 1e-12, rtol=1e-5
        )


@suite.case(channels=[1, 2, 3, 4], dtype=DTYPES)
def channels_of_a_group(kernels: Kernels, channels: int, dtype: torch.dtype) -> None:
    x = torch.randn(1, channels, 4, 4, dtype=dtype)
    weight, t = torch.randn(2, channels, 2, 2, dtype=dtype), torch.randn(1, 2, 2, 2, dtype=dtype)
    workspace, norm, coefficient = outputs(1, 1, dtype)
    kernels.launch(
        "led_fast_perpendicular_norm",
        *(x, weight, t, workspace, norm, coefficient, None, 1, 1, channels, 2, 4, 4, 2, 2),
        *(2, 2, 2, 2, 0, 0, 1, 1, DTYPES.index(dtype)),
    )
    check(norm, coefficient, x, torch.nn.grad.conv2d_input(x.shape, weight.double(), t.double(), 2))


@suite.case(refused=["channels", "weights"])
def refusals(kernels: Kernels, refused: str) -> None:
    channels, kernel = (5, 1) if refused == "channels" else (1, 65)
    x, weight = torch.zeros(1, channels, 65, 65), torch.zeros(1, channels, kernel, kernel)
    workspace, norm, coefficient = outputs(1, 17, torch.float32)
    with pytest.raises(SimtError, match="returned 1"):
        kernels.launch(
            "led_fast_perpendicular_norm",
            *(
                x,
                weight,
                torch.zeros(1, 1, 1, 1),
                workspace,
                norm,
                coefficient,
                None,
                1,
                1,
                channels,
                1,
                65,
                65,
                1,
                1,
            ),
            *(kernel, kernel, 1, 1, 0, 0, 1, 1, 1),
        )


suite.wrong("off-by-one bound", "cell >= 0 && cell < v.cells", "cell >= 0 && cell <= v.cells")
suite.wrong("cells above kept", "cell >= 0 && cell < v.cells", "cell < v.cells")
suite.wrong("cells to the left kept", "if (j < 0 || j >= h.cells)", "if (j >= h.cells)")
suite.wrong("cells to the right kept", "if (j < 0 || j >= h.cells)", "if (j < 0)")
suite.wrong("padding forgotten", "return (y + padding - tap * dilation)", "return (y - tap * dilation)")
suite.wrong("every column's tap taken", "kx += h.step", "kx += 1")
suite.wrong("every row's tap taken", "ky += 2 * v.step", "ky += v.step + 1")
suite.wrong("taps of a pair are neighbours", "v.step * h.kernel, taps", "h.kernel, taps")
suite.wrong("a single tap taken for a pair", "if (two) add", "if (true) add")
suite.wrong("a pair taken for a single tap", "if (two) add", "if (false) add")
suite.wrong("the pair starts at its first tap", "two ? ky + v.step : ky)", "ky)")
suite.wrong("cells of a strip are neighbours", "unsigned(v.cell_step) * h.cells *", "unsigned(h.cells) *")
suite.wrong("the last cell of a strip left out", "i <= kPixels; ++i", "i < kPixels; ++i")
suite.wrong("taps in the wrong order", "t[kTaps - 1 + r - a]", "t[r + a]")
suite.wrong("longer strips", "if (r >= length) continue;", "if (r > length) continue;")
suite.wrong("pixels of a strip are neighbours", "(y + r * p.period)", "(y + r)")
suite.wrong("channels and taps mixed up", "(i / taps * (kChannels - 1) + c) * taps", "c * taps")
suite.wrong("a period of the stride alone", "std::lcm(stride_h, dilation_h)", "stride_h")
suite.wrong("more packs than elements", "size % kPackSize<T> == 0 && aligned(x)", "aligned(x)")
suite.wrong(
    "packs of one element",
    "first = blockIdx.x % pieces * kPiece + threadIdx.x * N;",
    "first = blockIdx.x % pieces * kPiece + threadIdx.x;",
)
suite.wrong(
    "wrong group's weights", "(int64_t(group) * p.outs + first)", "(int64_t(of_group) * p.outs + first)"
)
suite.wrong("missing tail", "if (at < size) {", "if (at + N < size) {")
suite.wrong("last pieces dropped", "i < pieces; i += 32", "i + 1 < pieces; i += 32")
suite.wrong(
    "pieces not aligned before they are merged",
    "total = merge(total, {m[0], m[1], m[2]});",
    "total = {total.ux + m[0], total.uu + m[1], total.residual + m[2]};",
)
suite.wrong("double subtraction", "const T rest = x[i] - a * u[i];", "const T rest = x[i] - 2 * a * u[i];")
suite.wrong(
    "coefficient of the wrong thread",
    "if (threadIdx.x == 0) shared_coefficient",
    "if (threadIdx.x == 32) shared_coefficient",
)

test_cases = suite.test_cases()
test_launches = suite.test_launches()


@pytest.mark.parametrize("dtype", DTYPES)
def test_traffic_of_norm_to_is_the_least(dtype: torch.dtype) -> None:
    rows = suite.traffic(norm_to, dtype=dtype, size=2048, parallel=False)
    elements = [row for row in rows if row.space == "global" and row.bytes == 16]
    assert sum(16 * row.lanes for row in elements) == 2 * 9 * 2048 * dtype.itemsize  # x and u are read once
    assert all(row.lanes == 32 * row.requests for row in elements)
    for row in rows:
        assert row.units == row.ideal, f"more {row.space} traffic than needed: {row}"


def test_moments_of_pieces_are_merged_with_three_times_the_least_sectors() -> None:
    """A lane reads the three moments of its piece one after the other: little, beside the pieces themselves."""
    rows = suite.traffic(norm_to_many_pieces, size=32 * 2048)
    (merged,) = (row for row in rows if row.units != row.ideal)
    assert (merged.space, merged.kind, merged.bytes) == ("global", "read", 8)
    assert (merged.requests, merged.units, merged.ideal) == (3, 3 * 24, 3 * 8)


@pytest.mark.parametrize("dtype", DTYPES)
def test_traffic_of_norm_is_the_least(dtype: torch.dtype) -> None:
    """A strip of P pixels reads P + 1 cells for each pair of taps, and the weights of a tap once."""
    rows = suite.traffic(norm, dtype=dtype, name="block", keep_u=True)
    for row in rows:
        merging = row.place == _line_of("total = merge(total, {m[0]")  # the test above
        assert merging or row.units == row.ideal, f"more {row.space} traffic than needed: {row}"
    pixels, outs, pairs = 32 // dtype.itemsize, 2, 2
    warps = 32 // pixels  # a row of pixels a warp
    (cells,) = (row for row in rows if row.place == _line_of("cell + uint64_t(distance) * i"))
    outside = 2  # one row above the image's top strips, one below its lowest
    assert cells.requests == outs * pairs * (warps * (pixels + 1) - outside)
    (weights,) = (row for row in rows if row.place == _line_of("weight = weights["))
    assert weights.bytes * weights.requests == 4 * dtype.itemsize * outs * pairs * 2 * warps


def _line_of(text: str) -> str:
    """The only line of the kernels with the text, as the traffic's rows name it."""
    (line,) = (i for i, line in enumerate(SOURCE.read_text().splitlines(), 1) if text in line)
    return f"perpendicular/cuda.cu:{line}"
