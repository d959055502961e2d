"""The elimination in a block's shared memory, run on the CPU by the SIMT executor: panels, tiles, lists and tails."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from long_double import inverse_and_log_abs_det
from simt import Kernels, Suite, build
from simt.library import SCHEDULES, Schedule, SimtError, TrafficRow
from simt.suite import build_types, load
from test_simt_circulant_logdet import check, launch

from led_fast.ops._shared_memory import bytes_of_symbol

suite = Suite(
    "circulant_logdet",
    headers=tuple(f"circulant_logdet/{name}.cuh" for name in ("block", "eliminate")),
    only_headers=True,
)

# One, two, four and six rows a lane; a last panel of 1, of 7 and of 8 columns; tiles cut off below and on the right.
SMALL = [(torch.float64, c) for c in (17, 24, 31)] + [(torch.float32, c) for c in (33, 40, 47, 64)]
LARGE = [(torch.float64, 33), (torch.float64, 65), (torch.float32, 65), (torch.float32, 129)]


def scattered(channels: int, kernel: tuple[int, int]) -> torch.Tensor:
    """Well-conditioned, and no pivot is on the diagonal."""
    weight = torch.randn(1, channels, channels, *kernel, dtype=torch.float64) / math.prod(kernel)
    weight[:, :, :, -1, 0] += channels**0.5 * torch.eye(channels)[torch.randperm(channels)]
    return weight


@suite.case(of=SMALL, chunk=[None, 2])
def any_size(kernels: Kernels, of: tuple[torch.dtype, int], chunk: int | None) -> None:
    check(kernels, scattered(of[1], (1, 2)).to(of[0]), (1, 2), chunk)


@suite.case(of=[(torch.float64, 19), (torch.float32, 35)], kernel=[(1, 3), (3, 4)])
def taps_brought_by_warps(kernels: Kernels, of: tuple[torch.dtype, int], kernel: tuple[int, int]) -> None:
    check(kernels, scattered(of[1], kernel).to(of[0]), (1, 3), 2)


@suite.case(of=[(torch.float64, 18), (torch.float32, 41)])
def same_bits_with_and_without_gradient_of_pivots(kernels: Kernels, of: tuple[torch.dtype, int]) -> None:
    """Both eliminate the same rows below by the same pivots, so that log|det| has the same bits, in any order."""
    weight = torch.randn(1, of[1], of[1], 1, 2, dtype=of[0])
    first, _ = launch(kernels, weight, (1, 3), None)
    second, gradient = launch(kernels, weight, (1, 3), 1)
    again, same = launch(kernels, weight, (1, 3), 2)
    assert torch.equal(first, second) and torch.equal(second, again)
    torch.testing.assert_close(gradient, same, rtol=1e-5, atol=1e-5)


@suite.case(of=[(torch.float64, 23), (torch.float32, 42)])
def singular_and_not_finite(kernels: Kernels, of: tuple[torch.dtype, int]) -> None:
    dtype, channels = of
    weight = torch.randn(5, channels, channels, 1, 1, dtype=dtype)
    weight[1, :, channels - 1] = 0  # met in the last panel
    weight[2, 0, 12] = math.nan
    weight[3, channels - 1, 1] = math.inf
    weight[4] = 0
    for chunk in (None, 1):
        logdet, gradient = launch(kernels, weight, (1, 1), chunk)
        assert logdet[0].isfinite() and logdet[[1, 4]].eq(-math.inf).all() and logdet[2:4].isnan().all()
    assert gradient is not None and gradient[0].isfinite().all()
    assert gradient[[1, 4]].eq(0).all() and gradient[2:4].isnan().all()


@suite.case(of=[(torch.float64, 20), (torch.float32, 37)])
def pivots_of_all_sizes(kernels: Kernels, of: tuple[torch.dtype, int]) -> None:
    """A permutation times powers of two of half the range: each pivot is found, however small, and exact."""
    dtype, channels = of
    span = 400 if dtype is torch.float64 else 50
    exponents = torch.linspace(-span, span, channels, dtype=torch.float64).round()[torch.randperm(channels)]
    weight = torch.diag(2**exponents)[torch.randperm(channels)].to(dtype)
    logdet, gradient = launch(kernels, weight[None, :, :, None, None].contiguous(), (1, 1), 1)
    assert abs(logdet.item() - exponents.sum().item() * math.log(2)) < 1e-3
    assert gradient is not None
    expected = torch.where(weight != 0, 1 / weight, 0)
    assert torch.equal(gradient[0, :, :, 0, 0], expected)


suite.wrong(
    "no pivoting", "lane == find_largest(size)", "lane == __ffs(__ballot_sync(kFullMask, size >= 0)) - 1"
)
suite.wrong(
    "pivots by the real part",
    "used >> r & 1 ? Real(-1) : magnitude(entry[r][0])",
    "used >> r & 1 ? Real(-1) : Real(fabs(entry[r][0][0]))",
)
suite.wrong("used rows are pivots again", "used >> r & 1 ? Real(-1)", "lane + 32 * r >= count ? Real(-1)")
suite.wrong("lanes without a row have a pivot", "if (place >= count) used |= 1u << r;", "")
suite.wrong("pivot rows keep what they were", "&& !(recent >> r & 1))", ")")
suite.wrong("the pivot row is not scaled", "Real(j == 0 ? -1 : 0)", "Real(0)")
suite.wrong("one buffer for all pivot rows", "m.pivot_rows + k % 2 * kPanel", "m.pivot_rows")
suite.wrong(
    "a narrow panel's columns stay",
    "int j = panel.width(); j < kPanel; ++j",
    "int j = kPanel; j < kPanel; ++j",
)
suite.wrong("a lane counts itself", "((1u << lane) - 1)", "((2u << lane) - 1)")
suite.wrong("lists of one panel", "(1 + (panel & 1))", "1")
suite.wrong("rows beyond the last", "(i < present ? listed[i] : listed[0])", "listed[i]")
suite.wrong("columns beyond the last", "(first_column + j * across < columns ? j * across : 0)", "j * across")
suite.wrong("the next panel is updated twice", "c - left + next.end", "c - left + panel.end")
suite.wrong(
    "columns to the left are forgotten", "const int left = kInverse ? panel.begin : 0", "const int left = 0"
)
suite.wrong("no tiles of pivot rows", "(kInverse ? (panel.width() + kTile - 1) / kTile : 0)", "0")
suite.wrong(
    "a tile's columns end a line too early", "if (tile_column >= across) ", "if (tile_column > across) "
)
suite.wrong("the first warp's tiles are nobody's", "thread - idle, kThreads - idle", "thread, kThreads")
suite.wrong("columns of the inverse not permuted", "int64_t(m.order[e / n]) * n", "int64_t(e / n) * n")
suite.wrong("rows of the inverse not permuted", "m.entry(m.order[e % n], e / n)", "m.entry(e % n, e / n)")
suite.wrong(
    "mirrored frequencies counted once",
    "logs[task.log_index] = sum * task.weight_of_frequency;",
    "logs[task.log_index] = sum;",
)
suite.wrong(
    "singular symbols in the gradient",
    "sum == -INFINITY ? Real(0) : Real(task.weight_of_frequency + (sum - sum))",
    "Real(task.weight_of_frequency)",
)

test_cases = suite.test_cases()


@pytest.mark.parametrize("of", LARGE, ids=str)
def test_large(of: tuple[torch.dtype, int]) -> None:
    kernels = load(suite.name, build_types()[0])
    kernels.configure(SCHEDULES[0])
    for chunk in (None, 1):
        check(kernels, scattered(of[1], (1, 2)).to(of[0]), (1, 1), chunk)


@pytest.mark.slow
@pytest.mark.parametrize("of", LARGE, ids=str)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_large_is_free_of_races(schedule: Schedule, of: tuple[torch.dtype, int]) -> None:
    kernels = load(suite.name, build_types()[-1])
    kernels.configure(schedule)
    for chunk in (None, 1):
        check(kernels, scattered(of[1], (1, 2)).to(of[0]), (1, 1), chunk)


@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 119), (torch.float32, 169)])
def test_largest_symbol(dtype: torch.dtype, most: int) -> None:
    """The largest symbol of an H100's 227 KiB runs; one channel more is refused, as Python foresees."""
    assert bytes_of_symbol(most, dtype.itemsize) <= 227 * 1024 < bytes_of_symbol(most + 1, dtype.itemsize)
    kernels = load(suite.name, build_types()[0])
    kernels.configure(SCHEDULES[0])
    check(kernels, scattered(most, (1, 1)).to(dtype), (1, 1), None)
    with pytest.raises(SimtError, match=r"led_fast_circulant_logdet returned 1\n"):
        launch(kernels, scattered(most + 1, (1, 1)).to(dtype), (1, 1), None)


@pytest.mark.parametrize(
    ("shared_kib", "float32", "float64"), [(227, 169, 119), (163, 143, 101), (99, 111, 77)]
)
def test_limits_of_architectures(shared_kib: int, float32: int, float64: int) -> None:
    """Of sm_90 and sm_100, sm_80, and the consumers' sm_86, sm_89 and sm_120."""
    for real_bytes, most in ((4, float32), (8, float64)):
        fits = [c for c in range(1, 200) if bytes_of_symbol(c, real_bytes) <= shared_kib * 1024]
        assert fits == list(range(1, most + 1))


def test_python_knows_the_layout(tmp_path: Path) -> None:
    """bytes_of_symbol is BlockMatrix::bytes, and static and reserved memory."""
    source = tmp_path / "bytes.cpp"
    source.write_text(
        r"""
        #include <cstdio>
        #include "circulant_logdet/eliminate.cuh"
        using namespace led::circulant_logdet;
        int main() {
          for (int n = 1; n <= 192; n++)
            printf("%zu %zu\n", BlockMatrix<float>::bytes(n), BlockMatrix<double>::bytes(n));
        }
        """
    )
    if reason := build.missing_requirement():
        pytest.skip(reason)
    compile_command, _ = build._commands(suite.name, "plain")  # which knows where CUDA's headers are
    headers = compile_command[compile_command.index("-isystem") :][:2]
    command = ["g++", "-std=c++17", "-DLED_FAST_SIMT", "-w", f"-I{build.CSRC}", *headers]
    build.run([*command, "-o", str(tmp_path / "bytes"), str(source)])
    found = [tuple(map(int, line.split())) for line in build.run([str(tmp_path / "bytes")]).splitlines()]
    assert found == [(bytes_of_symbol(n, 4) - 1088, bytes_of_symbol(n, 8) - 1088) for n in range(1, 193)]


@pytest.mark.parametrize(("channels", "bound"), [(40, 10), (47, 9.5), (64, 8.2)])
def test_shared_memory_traffic(channels: int, bound: float) -> None:
    """Passes over the banks, at 128 bytes each, per complex multiply-add of an inverse: n³ of them."""
    rows = suite.traffic(any_size, of=(torch.float32, channels), chunk=2)
    frequencies = 2
    source = (build.CSRC / "circulant_logdet" / "eliminate.cuh").read_text().splitlines()

    def of(text: str) -> list[TrafficRow]:
        (line,) = (i for i, code in enumerate(source, 1) if text in code)
        return [
            row for row in rows if row.place == f"circulant_logdet/eliminate.cuh:{line}" and row.bytes == 8
        ]

    for row in of("left[i] = *reinterpret_cast") + of("right[j] = place(j, pivot_row)"):
        assert row.units <= 1.05 * row.ideal  # the inner loop of the update has no conflicts
    elimination = [row for row in rows if row.space == "shared" and "eliminate.cuh" in row.place]
    passes = sum(row.units for row in elimination) / frequencies
    assert 128 * passes / channels**3 <= bound


def long_double_truth(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """log|det| and its gradient."""
    inverse, log = inverse_and_log_abs_det(matrix.double().numpy())
    return torch.tensor(float(log), dtype=torch.float64), torch.from_numpy(inverse.T.real.astype(np.float64))


def dependent_columns(n: int) -> torch.Tensor:
    """Each second column is nearly the one before it: an ill-conditioned block on each panel's diagonal."""
    a = torch.randn(n, n, dtype=torch.float64)
    a[:, 1::2] = a[:, 0 : n - 1 : 2] + 1e-3 * a[:, 1::2]
    return a


def scaled(n: int) -> torch.Tensor:
    scales = torch.logspace(-3, 3, n, dtype=torch.float64)[torch.randperm(n)]
    return torch.randn(n, n, dtype=torch.float64) * scales[:, None]


def growing(n: int) -> torch.Tensor:
    a = torch.eye(n, dtype=torch.float64) - torch.ones(n, n, dtype=torch.float64).tril(-1)
    a[:, -1] = 1
    return a + 0.1 * torch.randn(n, n, dtype=torch.float64)


MATRICES = {
    "gaussian": lambda n: torch.randn(n, n, dtype=torch.float64),
    "dependent columns": dependent_columns,
    "scaled rows": scaled,
    "growing": growing,
}


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize(("dtype", "channels"), [(torch.float64, 26), (torch.float32, 44)])
def test_as_accurate_as_lu(matrix: str, dtype: torch.dtype, channels: int) -> None:
    """At most twice PyTorch's error against long double, in units of eps and the condition, on average.

    Not the gradient of rows of different scales: there Gauss-Jordan, with the pivots of LU, has about four times its
    error.
    """
    kernels = load(suite.name, "plain")
    kernels.configure(SCHEDULES[0])
    a = torch.stack([MATRICES[matrix](channels) for _ in range(48)]).to(dtype)
    logs, gradients = map(torch.stack, zip(*map(long_double_truth, a), strict=True))
    leaf = a.clone().requires_grad_()
    plain = torch.linalg.slogdet(leaf).logabsdet
    (plain_gradient,) = torch.autograd.grad(plain.sum(), leaf)
    ours, gradient = launch(kernels, a[..., None, None].contiguous(), (1, 1), 1)
    assert gradient is not None
    unit = torch.finfo(dtype).eps * torch.linalg.cond(a.double())

    def error(found: torch.Tensor, exact: torch.Tensor) -> float:
        difference = (found.detach().double() - exact).flatten(1).norm(dim=1)
        return (difference / exact.flatten(1).norm(dim=1).clamp(min=1) / unit).mean().item()

    rounding = 1 / unit.min().item() * torch.finfo(dtype).eps
    assert error(ours[:, None], logs[:, None]) <= 2 * error(plain[:, None], logs[:, None]) + rounding
    if matrix != "scaled rows":
        assert error(gradient[..., 0, 0], gradients) <= 2 * error(plain_gradient, gradients)
