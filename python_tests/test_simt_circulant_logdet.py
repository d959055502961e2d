"""The circulant log-determinant's CUDA kernels, run on the CPU by the SIMT executor."""

import math

import pytest
import torch
from long_double import exact_logdet, needs_long_double
from simt import Kernels, Suite, build
from simt.library import SCHEDULES
from simt.suite import build_types, load

from led_fast import reference

suite = Suite(
    "circulant_logdet",
    headers=tuple(
        f"circulant_logdet/{name}.cuh" for name in ("block", "determinant", "eliminate", "symbol", "warp")
    ),
)

DTYPES = [torch.float64, torch.float32]  # by the launcher's dtype code
# Lanes of a warp's matrix: 8, 16 and 32 (fp64: a block's from 17 on); then a block's.
CHANNELS = [1, 3, 8, 11, 16, 17]


def launch(
    kernels: Kernels, weight: torch.Tensor, grid: tuple[int, int], chunk: int | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The launcher's results, with a gradient where a chunk size is given."""
    batch, channels, _, *kernel = weight.shape
    rows, columns = grid
    mirrored = 2 - columns % 2
    frequencies = mirrored * (rows // 2 + 1) + (columns - mirrored) // 2 * rows
    logdet = weight.new_full((batch,), math.nan)
    gradient = inverses = None
    if chunk is not None:
        gradient = torch.full_like(weight, math.nan)
        inverses = weight.new_full((batch * chunk * channels**2 * 2,), math.nan)
    cosines = (math.prod(kernel) + 1) // 2
    phases = weight.new_full((frequencies * cosines * 2,), math.nan)
    folded = None
    if channels * weight.element_size() <= 128:  # a warp has the matrix
        folded = weight.new_full((batch * channels**2 * cosines * 2,), math.nan)
    logs = torch.full((batch * frequencies,), math.nan, dtype=torch.float64)
    kernels.launch(
        "led_fast_circulant_logdet",
        *(weight, logdet, gradient, phases, folded, logs, inverses, batch, channels, *kernel, *grid),
        *(chunk or 1, DTYPES.index(weight.dtype)),
    )
    return logdet, gradient


def check(
    kernels: Kernels, weight: torch.Tensor, grid: tuple[int, int], chunk: int | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    logdet, gradient = launch(kernels, weight, grid, chunk)
    exact_weight = weight.double().requires_grad_()
    exact = reference.circulant_logdet(exact_weight, grid)
    (exact_gradient,) = torch.autograd.grad(exact.sum(), exact_weight)
    tolerance = 1e-10 if weight.dtype is torch.float64 else 2e-4
    torch.testing.assert_close(logdet.double(), exact, rtol=tolerance, atol=tolerance)
    if gradient is not None:
        error = (gradient.double() - exact_gradient).flatten(1).norm(dim=1)
        assert (error <= tolerance * exact_gradient.flatten(1).norm(dim=1)).all()
    return logdet, gradient


@suite.case(dtype=DTYPES, shape=[(2, c, c, 2, 3) for c in CHANNELS], grid=[(2, 3)], chunk=[None, 3])
@suite.case(
    dtype=DTYPES, shape=[(3, 2, 2, 1, 1), (1, 2, 2, 5, 5), (1, 9, 9, 3, 4)], grid=[(1, 4)], chunk=[None, 2]
)
@suite.case(dtype=[torch.float64], shape=[(2, 2, 2, 3, 3)], grid=[(5, 14)], chunk=[None, 7])
@suite.case(
    dtype=[torch.float32], shape=[(1, 33, 33, 1, 1), (1, 40, 40, 1, 2)], grid=[(1, 2)], chunk=[None, 1]
)
def well_conditioned(
    kernels: Kernels,
    dtype: torch.dtype,
    shape: tuple[int, ...],
    grid: tuple[int, int],
    chunk: int | None,
) -> None:
    weight = torch.randn(shape, dtype=torch.float64) / math.prod(shape[2:])
    weight[:, :, :, -1, 0] += torch.eye(shape[1])[torch.randperm(shape[1])]  # no pivot on the diagonal
    check(kernels, weight.to(dtype), grid, chunk)


@suite.case(dtype=DTYPES, channels=[4, 12, 18])
def scaled_rows(kernels: Kernels, dtype: torch.dtype, channels: int) -> None:
    weight = torch.randn(1, channels, channels, 1, 2, dtype=torch.float64)
    weight *= torch.logspace(-6, 6, channels, dtype=torch.float64)[:, None, None, None]
    check(kernels, weight.to(dtype), (1, 3), 2)


@suite.case(dtype=DTYPES, channels=[4, 18], grid=[(1, 3)])
def scaled_columns(kernels: Kernels, dtype: torch.dtype, channels: int, grid: tuple[int, int]) -> None:
    weight = torch.randn(1, channels, channels, 1, 2, dtype=torch.float64)
    weight *= torch.logspace(-6, 6, channels, dtype=torch.float64)[:, None, None]
    check(kernels, weight.to(dtype), grid, 2)


@suite.case(dtype=DTYPES, exponent=[-0.95, -0.5, 0.5, 0.98])
def extreme_scales(kernels: Kernels, dtype: torch.dtype, exponent: float) -> None:
    """Pivots whose squares, products or inverses over- or underflow; 0.98 is near the ends of the normal numbers."""
    weight = torch.randn(2, 3, 3, 1, 2, dtype=torch.float64).to(dtype)
    largest = torch.finfo(dtype).max
    power = 2.0 ** round(math.log2(largest) * exponent)
    logdet, gradient = launch(kernels, weight * power, (1, 4), 2)
    plain, plain_gradient = launch(kernels, weight, (1, 4), 2)
    torch.testing.assert_close(logdet, plain + 12 * math.log(power), rtol=1e-6, atol=1e-6)
    if exponent > -0.9:  # else the inverse overflows
        torch.testing.assert_close(gradient * power, plain_gradient, rtol=1e-5, atol=1e-5)


@suite.case(dtype=DTYPES)
def largest_pivot(kernels: Kernels, dtype: torch.dtype) -> None:
    """The power of two of its inverse is no normal number."""
    power = 2.0 ** (math.frexp(torch.finfo(dtype).max)[1] - 2)
    weight = torch.tensor([1.1, 1.2], dtype=dtype).view(1, 1, 1, 1, 2)
    logdet, gradient = launch(kernels, weight * power, (1, 1), 1)
    assert gradient is not None
    torch.testing.assert_close(logdet, (weight.sum().log() + math.log(power)).view(1))
    torch.testing.assert_close(gradient * power, (1 / weight.sum()).expand(1, 1, 1, 1, 2))


@suite.case(channels=[3, 34])
def singular_and_not_finite(kernels: Kernels, channels: int) -> None:
    weight = torch.randn(4, channels, channels, 1, 1) + channels * torch.eye(channels)[:, :, None, None]
    weight[1, :, 1] = 0
    weight[2, 0, 2] = math.nan
    weight[3, 2, 1] = math.inf
    logdet, gradient = launch(kernels, weight, (1, 2), 2)
    assert logdet[0].isfinite() and logdet[1] == -math.inf and logdet[2:].isnan().all()
    assert gradient is not None
    assert gradient[0].isfinite().all() and gradient[1].eq(0).all() and gradient[2:].isnan().all()


@suite.case(shape=[(0, 3, 3, 3, 3), (2, 0, 0, 3, 3)])
def empty(kernels: Kernels, shape: tuple[int, ...]) -> None:
    launch(kernels, torch.empty(shape), (4, 4), 1)


suite.wrong("tap and mirror not subtracted", "taps[t] - taps[mirror]}", "taps[t] + taps[mirror]}")
suite.wrong("centre tap counted twice", "  if (t == mirror) return {taps[t], 0};\n", "")
suite.wrong("symbol of the first convolution", "task.convolution * cosines", "0 * cosines")
suite.wrong("last column not eliminated", "j >= n - k) break", "j >= n - k - 1) break")
suite.wrong("pivot row eliminated", "if (kInverse && is_pivot) multiplier = {0, 0};", "")
suite.wrong("pivot rows not divided by pivots", "factor = reciprocal(pivot);", "factor = {1, 0};")
suite.wrong("sign of an imaginary part", "+ multiplier[1] * entry[1]", "- multiplier[1] * entry[1]")
suite.wrong(
    "inverse taken for transposed", "transposed ? entry % s.channels", "!transposed ? entry % s.channels"
)
suite.wrong("exponents not added", "a.exponent + b.exponent", "b.exponent")
suite.wrong("scale of a float64 pivot lost", "exponent = 2 * (1023 -", "exponent = 0 * (1023 -")
suite.wrong("zero is a number", "high - 0x00100000u >= 0x7fe00000u", "high >= 0x7ff00000u")
suite.wrong("infinity is a number", "high - 0x00100000u >= 0x7fe00000u", "high < 0x00100000u")
suite.wrong("no scale for large floats", "min(exponent, 0x7e800000u)", "exponent")
suite.wrong("no scale for large doubles", "min(exponent, 0x7fd00000u)", "exponent")
suite.wrong("rows of any scale compete", "weigh(magnitude(factor), scale)", "magnitude(factor)")
suite.wrong("low bits of a pivot lost", "int(bits >> 32) + (int(bits) != 0)", "int(bits)")
suite.wrong("pivot of another lane", "const int who = N - 1 - key % N;", "const int who = key % N;")
suite.wrong("symbol conjugated for half the taps", "(tap - mirror) * phases", "(tap + mirror) * phases")
suite.wrong("centre tap forgotten", "count > 2 * pairs ? taps[pairs] : Real(0)", "Real(0)")
suite.wrong(
    "no pivoting",
    "int key = step < 0 ? pivot_key<N>(weigh(magnitude(factor), scale), lane) : -1;",
    "int key = lane == k ? N - 1 - lane : -1;",
)
suite.wrong(
    "used rows can be pivots again",
    "int key = step < 0 ?",
    "int key = lane < n ?",
)
suite.wrong(
    "inactive lanes write", "if (column >= 0 && lane < n && index < count)", "if (column >= 0 && lane < n)"
)
suite.wrong("rows of the inverse not permuted", "in * n + step]", "column * n + step]")
suite.wrong(
    "pivot column not replaced",
    "is_pivot ? Real(1) : -multiplier[0]",
    "is_pivot ? Real(1) : multiplier[0]",
)
suite.wrong(
    "singular symbols in the gradient",
    "Real(determinant.mantissa == 0 ? 0 : task.weight_of_frequency)",
    "Real(task.weight_of_frequency)",
)
suite.wrong("NaN is never a pivot", "return size == size ? size : Real(INFINITY);", "return size;")
suite.wrong(
    "chunks overwrite each other",
    "out[t + k] = first ? centre : out[t + k] + centre;",
    "out[t + k] = centre;",
)
suite.wrong(
    "phases of the first chunk", "phases[(s.first + f) * cosines + t + k]", "phases[f * cosines + t + k]"
)
suite.wrong("one slice forgotten", "for (int i = 0; i < kSlices; ++i)", "for (int i = 1; i < kSlices; ++i)")
suite.wrong("mirror tap's sign", "whole[0] : whole[0] - whole[1]", "whole[0] : whole[0] + whole[1]")
suite.wrong(
    "entries beyond the end", "if (entry < entries) {\n        const int place", "{\n        const int place"
)
suite.wrong("frequencies beyond the warp forgotten", "f < count; f += 32", "f < 32; f += 64")

test_cases = suite.test_cases()
test_launches = suite.test_launches()


# A whole number of sectors a row, so that ideal and unavoidable are the same.
@pytest.mark.parametrize(
    ("dtype", "channels"), [(torch.float64, 16), (torch.float32, 16), (torch.float32, 32)]
)
def test_a_warp_reads_and_writes_whole_rows(dtype: torch.dtype, channels: int) -> None:
    shape = (1, channels, channels, 3, 3)
    rows = suite.traffic(well_conditioned, dtype=dtype, shape=shape, grid=(1, 2), chunk=1)
    (taps,) = (row for row in rows if row.place == line_of("tap = folded[i * n];"))
    sectors = channels * 2 * dtype.itemsize // 32  # a row's
    assert taps.units == taps.ideal == sectors * taps.requests
    assert taps.requests == 2 * 4 * 5 * channels  # launches, warps, folded taps, rows
    (inverse,) = (row for row in rows if row.place == line_of("= multiply(row[j], factor);"))
    assert inverse.units == inverse.ideal == sectors * inverse.requests


def line_of(text: str) -> str:
    """The line of warp.cuh with this text, as traffic names it."""
    lines = (build.CSRC / "circulant_logdet" / "warp.cuh").read_text().splitlines()
    (line,) = (i + 1 for i, content in enumerate(lines) if text in content)
    return f"circulant_logdet/warp.cuh:{line}"


def hard_weights(kind: str, channels: int, count: int) -> torch.Tensor:
    """Convolutions whose log-determinant or elimination is delicate, in float64."""
    weight = torch.randn(count, channels, channels, 3, 3, dtype=torch.float64) / (3 * channels**0.5)
    scales = torch.logspace(-4, 4, channels, dtype=torch.float64)
    if kind == "rows":
        weight *= scales[torch.randperm(channels)][:, None, None, None]
    elif kind == "columns":
        weight *= scales[torch.randperm(channels)][:, None, None]
    elif kind == "ill-conditioned":
        u, v = (torch.linalg.qr(torch.randn(channels, channels, dtype=torch.float64))[0] for _ in range(2))
        weight *= 1e-5
        weight[..., 1, 1] += u @ torch.diag(torch.logspace(0, -4, channels, dtype=torch.float64)) @ v
    elif kind == "cancelling":  # large terms of both signs whose sum is next to nothing
        weight[..., 1, 1] += 2 * torch.eye(channels, dtype=torch.float64)
        total = reference.circulant_logdet(weight, (3, 4))
        weight *= (-total / (12 * channels)).exp()[:, None, None, None, None]
    return weight


@needs_long_double
@pytest.mark.parametrize("kind", ["plain", "rows", "columns", "ill-conditioned", "cancelling"])
@pytest.mark.parametrize(
    ("dtype", "channels"), [(torch.float32, 1), (torch.float32, 8), (torch.float32, 24), (torch.float64, 12)]
)
def test_is_as_accurate_as_plain_pytorch(dtype: torch.dtype, channels: int, kind: str) -> None:
    """The median error over several weights is at most twice plain PyTorch's, by the truth in long double."""
    torch.manual_seed(0)
    kernels, grid, count = load("circulant_logdet", build_types()[0]), (3, 4), 24
    kernels.configure(SCHEDULES[0])
    weights = hard_weights(kind, channels, count).to(dtype)
    leaves = weights.clone().requires_grad_()
    plain = reference.circulant_logdet(leaves, grid)
    (plain_gradient,) = torch.autograd.grad(plain.sum(), leaves)
    logdet, gradient = launch(kernels, weights, grid, 4)
    assert gradient is not None
    truths = [exact_logdet(weight, grid) for weight in weights]
    eps = torch.finfo(dtype).eps

    def errors(values: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
        found = []
        for i, (value, exact) in enumerate(truths):
            off = gradients[i].double().numpy() - exact
            found.append(
                [
                    abs(float(values[i].double().numpy() - value)),
                    float((abs(off) ** 2).sum() / (exact**2).sum()),
                ]
            )
        return torch.tensor(found, dtype=torch.float64).median(0).values

    (ours, ours_gradient), (theirs, theirs_gradient) = (
        errors(logdet, gradient),
        errors(plain.detach(), plain_gradient),
    )
    size = float(torch.tensor([float(abs(value)) for value, _ in truths]).median())
    print(
        f"{ours / eps:.1f} {theirs / eps:.1f} eps; {ours_gradient**0.5 / eps:.1f} {theirs_gradient**0.5 / eps:.1f}"
    )
    assert ours <= 2 * theirs + eps * max(size, 1)
    assert ours_gradient**0.5 <= 2 * theirs_gradient**0.5 + 2 * eps


# With one tap, folds read and write whole rows, too.
@pytest.mark.parametrize(("dtype", "channels"), [(torch.float64, 17), (torch.float32, 33)])
def test_traffic_around_the_elimination_is_the_least_but_for_two_way_conflicts_of_the_fold(
    dtype: torch.dtype, channels: int
) -> None:
    shape = (1, channels, channels, 1, 1)
    rows = suite.traffic(well_conditioned, dtype=dtype, shape=shape, grid=(1, 2), chunk=1)
    unaligned = [row for row in rows if row.space == "global" and row.units != row.ideal]
    (inverse,) = (row for row in unaligned if row.kind == "write")
    assert inverse.bytes == 2 * dtype.itemsize
    assert inverse.units <= 1.2 * inverse.ideal  # a column of the inverse starts anywhere in a sector
    (taps,) = (row for row in unaligned if row.kind == "read")
    assert taps.units <= taps.ideal + taps.requests  # those of the last rows start anywhere in a sector
    # The elimination's own traffic: test_simt_circulant_block.py.
    rows = [row for row in rows if row.place.startswith("circulant_logdet/cuda.cu:")]
    conflicts = [row for row in rows if row.units != row.ideal]
    assert len(conflicts) == 2 and len(rows) > 6  # the fold's, of real and of imaginary parts
    for row in conflicts:
        assert (row.space, row.kind, row.bytes) == ("shared", "read", dtype.itemsize)
        assert row.units == 2 * row.ideal
