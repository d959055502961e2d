"""The circulant log-determinant's CUDA kernels, run on the CPU by the SIMT executor."""

import math

import pytest
import torch
from simt import Kernels, Suite

from led_fast import reference

suite = Suite(
    "circulant_logdet",
    headers=tuple(f"circulant_logdet/{name}.cuh" for name in ("eliminate", "symbol", "warp")),
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
    phases = weight.new_full((frequencies * ((math.prod(kernel) + 1) // 2) * 2,), math.nan)
    logs = torch.full((batch * frequencies,), math.nan, dtype=torch.float64)
    kernels.launch(
        "led_fast_circulant_logdet",
        *(weight, logdet, gradient, phases, logs, inverses, batch, channels, *kernel, *grid),
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


suite.wrong("symbol conjugated for half the taps", "(tap - mirror) * phases", "(tap + mirror) * phases")
suite.wrong("centre tap forgotten", "count > 2 * pairs ? taps[pairs] : Real(0)", "Real(0)")
suite.wrong(
    "no pivoting",
    "Real size = step < 0 ? magnitude(row[0]) : Real(-1);",
    "Real size = lane == k ? Real(1) : Real(-1);",
)
suite.wrong(
    "used rows can be pivots again",
    "step < 0 ? magnitude(row[0]) : Real(-1)",
    "lane < n ? magnitude(row[0]) : Real(-1)",
)
suite.wrong(
    "inactive lanes write", "if (column >= 0 && lane < n && index < count)", "if (column >= 0 && lane < n)"
)
suite.wrong("rows of the inverse not permuted", "int64_t(out) * n + step]", "int64_t(column) * n + step]")
suite.wrong(
    "pivot column not replaced",
    "-product[0], -product[1]};\n    if (is_pivot) {",
    "factor[0], factor[1]};\n    if (is_pivot) {",
)
suite.wrong(
    "singular symbols in the gradient",
    "const Real scale = sum == -INFINITY ? Real(0) : Real(task.weight_of_frequency + (sum - sum));\n#pragma",
    "const Real scale = Real(task.weight_of_frequency);\n#pragma",
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
suite.wrong("entries beyond the end", "if (entry < entries) {\n        Real* out", "{\n        Real* out")
suite.wrong("frequencies beyond the warp forgotten", "f < count; f += 32", "f < 32; f += 64")

test_cases = suite.test_cases()
test_launches = suite.test_launches()


# The smallest matrices of a block, with one tap.
@pytest.mark.parametrize(("dtype", "channels"), [(torch.float64, 17), (torch.float32, 33)])
def test_traffic_is_the_least_but_for_permuted_columns_and_the_two_way_conflicts_of_the_fold(
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
    # Only whole warps: requests are told apart by their count, which lanes that sit a step out fall behind with.
    # The elimination's own traffic: test_simt_circulant_block.py.
    shared = [row for row in rows if row.space == "shared" and row.lanes == 32 * row.requests]
    shared = [row for row in shared if "eliminate.cuh" not in row.place]
    conflicts = [row for row in shared if row.units != row.ideal]
    assert len(conflicts) == 2 and len(shared) > 2  # the fold's, of real and of imaginary parts
    for row in conflicts:
        assert (row.kind, row.bytes, row.units) == ("read", dtype.itemsize, 2 * row.ideal)
