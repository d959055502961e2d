"""The CUDA kernels that undo circular convolutions, run on the CPU by the SIMT executor."""

import math

import pytest
import torch
from simt import Kernels, Suite

from led_fast import reference

suite = Suite("circular_conv_inverse", headers=("circulant_logdet/eliminate.cuh",))

DTYPES = [torch.float64, torch.float32]  # by the launcher's dtype code


class Inverse:
    """The launchers and PyTorch's Fourier transforms, as led_fast/ops/_circular_conv_inverse_cuda.py has them."""

    def __init__(self, kernels: Kernels, weight: torch.Tensor, grid: tuple[int, int]) -> None:
        self.kernels, self.weight, self.grid = kernels, weight, grid
        self.channels, self.frequencies = weight.shape[0], grid[0] * (grid[1] // 2 + 1)
        self.code = DTYPES.index(weight.dtype)
        taps = math.prod(weight.shape[2:])
        self.phases = weight.new_full((taps, self.frequencies, 2), math.nan)
        self.inverses = weight.new_full((self.channels, self.channels, self.frequencies, 2), math.nan)
        self.log_abs_det = weight.new_full((1,), math.nan)
        logs = torch.full((self.frequencies,), math.nan, dtype=torch.float64)
        kernels.launch(
            "led_fast_circular_conv_invert",
            *(weight, self.inverses, self.log_abs_det, self.phases, logs, self.channels),
            *(*weight.shape[2:], *grid, self.code),
        )

    def solve(self, images: torch.Tensor, adjoint: bool = False) -> torch.Tensor:
        """The spectrum of the solution."""
        spectrum = torch.view_as_real(torch.fft.rfft2(images)).contiguous()
        solved = torch.full_like(spectrum, math.nan)
        self.kernels.launch(
            "led_fast_circular_conv_solve",
            *(
                spectrum,
                self.inverses,
                solved,
                len(images),
                self.channels,
                self.frequencies,
                adjoint,
                self.code,
            ),
        )
        return solved

    def images(self, spectrum: torch.Tensor) -> torch.Tensor:
        return torch.fft.irfft2(torch.view_as_complex(spectrum), s=self.grid)

    def weight_gradient(
        self, grad: torch.Tensor | None, solved: torch.Tensor, grad_log: torch.Tensor | None
    ) -> torch.Tensor:
        result, phases = torch.full_like(self.weight, math.nan), torch.full_like(self.phases, math.nan)
        self.kernels.launch(
            "led_fast_circular_conv_weight_gradient",
            *(
                grad,
                solved,
                self.inverses,
                grad_log,
                result,
                phases,
                torch.full_like(self.inverses, math.nan),
            ),
            *(len(solved), self.channels, *self.weight.shape[2:], *self.grid, self.code),
        )
        return result


def assert_near(found: torch.Tensor, exact: torch.Tensor) -> None:
    tolerance = 1e-11 if found.dtype is torch.float64 else 1e-4
    assert (found.double() - exact).norm() <= tolerance * exact.norm()


@suite.case(dtype=DTYPES, channels=[5, 18], samples=[6], grid=[(2, 3), (5, 4)], kernel=[(2, 3)])
@suite.case(dtype=DTYPES, channels=[2], samples=[1], grid=[(1, 1), (8, 14)], kernel=[(3, 3), (5, 4)])
@suite.case(dtype=[torch.float32], channels=[34], samples=[2], grid=[(1, 2)], kernel=[(1, 2)])
def value_and_gradients(
    kernels: Kernels,
    dtype: torch.dtype,
    channels: int,
    samples: int,
    grid: tuple[int, int],
    kernel: tuple[int, int],
) -> None:
    weight = torch.randn(channels, channels, *kernel, dtype=torch.float64) / (
        4 * math.prod(kernel) * channels**0.5
    )
    weight[:, :, -1, 0] += torch.linalg.qr(torch.randn(channels, channels, dtype=torch.float64))[0]
    weight = weight.to(dtype)
    y, grad_x = torch.randn(2, samples, channels, *grid, dtype=dtype).unbind()
    grad_log = torch.randn(1, dtype=dtype)
    leaves = y.double().requires_grad_(), weight.double().requires_grad_()
    exact = reference.circular_conv_inverse(*leaves)
    exact_y, exact_weight = torch.autograd.grad(
        exact, leaves, [grad_x.double(), grad_log[0].double()], retain_graph=True
    )
    (of_log,) = torch.autograd.grad(exact[1], leaves[1], grad_log[0].double())

    inverse = Inverse(kernels, weight, grid)
    solved = inverse.solve(y)
    assert_near(inverse.images(solved), exact[0].detach())
    assert abs(inverse.log_abs_det.item() - exact[1].item()) < (1e-10 if dtype is torch.float64 else 2e-4)
    grad_spectrum = inverse.solve(grad_x, adjoint=True)
    assert_near(inverse.images(grad_spectrum), exact_y)
    assert_near(inverse.weight_gradient(grad_spectrum, solved, grad_log), exact_weight)
    assert_near(inverse.weight_gradient(grad_spectrum, solved, None), exact_weight - of_log)
    assert_near(inverse.weight_gradient(None, solved, grad_log), of_log)


@suite.case(dtype=DTYPES, channels=[4, 12])
def no_pivot_on_the_diagonal(kernels: Kernels, dtype: torch.dtype, channels: int) -> None:
    order = torch.arange(channels).roll(1)
    y, weight = torch.randn(2, channels, 1, 3, dtype=dtype), torch.eye(channels, dtype=dtype)[order]
    inverse = Inverse(kernels, weight[:, :, None, None].contiguous(), (1, 3))
    assert_near(inverse.images(inverse.solve(y)), y[:, order.argsort()].double())


@suite.case(bad=["singular", math.nan, math.inf], channels=[3, 34])
def no_inverse(kernels: Kernels, bad: str | float, channels: int) -> None:
    weight = torch.randn(channels, channels, 1, 1) + channels * torch.eye(channels)[:, :, None, None]
    if bad == "singular":
        weight[1] = 0
    else:
        weight[1, 2] = bad
    inverse = Inverse(kernels, weight, (1, 2))
    assert inverse.log_abs_det == math.inf if bad == "singular" else inverse.log_abs_det.isnan().all()
    assert inverse.inverses.isnan().all()


@suite.case(size=[(0, 3), (2, 0)])
def empty(kernels: Kernels, size: tuple[int, int]) -> None:
    samples, channels = size
    spectrum, inverses = torch.empty(samples, channels, 2, 2, 2), torch.empty(channels, channels, 4, 2)
    kernels.launch(
        "led_fast_circular_conv_solve", spectrum, inverses, spectrum, samples, channels, 4, False, 1
    )


suite.wrong("phase not conjugated with the tap", "2 * f * (tap - (taps - 1) / 2)", "2 * f * (tap - taps / 2)")
suite.wrong(
    "column's phases along rows",
    "t % s.kernel_columns, s.kernel_columns",
    "t / s.kernel_columns, s.kernel_columns",
)
suite.wrong("mirrored frequencies counted once", "% columns == 0 ? 1 : 2", "% columns == 0 ? 1 : 1")
suite.wrong("last column counted twice", "2 * (frequency % half()) % columns == 0", "frequency % half() == 0")
suite.wrong(
    "inverse transposed",
    "(int64_t(e / n) * n + m.order[e % n]) * count",
    "(int64_t(m.order[e % n]) * n + e / n) * count",
)
suite.wrong("columns of the inverse not permuted", "m.order[e % n]) * count", "e % n) * count")
suite.wrong("singular symbols have an inverse", "Real(1 + (sum - sum))", "Real(1)")
suite.wrong("log-determinant of the forward map", "sum -= logs[f]", "sum += logs[f]")
suite.wrong("frequencies beyond the warp forgotten", "f < s.frequencies(); f += 32", "f < 32; f += 64")
suite.wrong("adjoint not transposed", "kAdjoint ? k * n + row", "kAdjoint ? row * n + k")
suite.wrong("adjoint not conjugated", "add_product<kAdjoint>", "add_product<false>")
suite.wrong(
    "samples beyond the last are written", "tile.row + i < n && tile.column + j < samples", "tile.row + i < n"
)
suite.wrong(
    "rows beyond the last are written",
    "tile.row + i < n && tile.column + j < samples",
    "tile.column + j < samples",
)
suite.wrong("gradient not conjugated", "add_product<true>(sum", "add_product<false>(sum")
suite.wrong(
    "log-determinant's gradient transposed",
    "inverses[((tile.column + j) * n + tile.row + i) * count",
    "inverses[((tile.row + i) * n + tile.column + j) * count",
)
suite.wrong("log-determinant's gradient of one cell", "grad_log[0] * cells", "grad_log[0]")
suite.wrong("gradient's sign", "Real(-s.occurrences", "Real(s.occurrences")
suite.wrong(
    "fold by the conjugate phase", "z[0] * phase[0] - z[1] * phase[1]", "z[0] * phase[0] + z[1] * phase[1]"
)
suite.wrong("entries beyond the last", "if (entry >= int64_t(s.channels) * s.channels) return;", "")
suite.wrong("rows of the inverse not permuted", "m.entry(m.order[e / n], e % n)", "m.entry(e / n, e % n)")

test_cases = suite.test_cases()
test_launches = suite.test_launches()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_traffic_of_products_is_the_least(dtype: torch.dtype) -> None:
    """Neighbouring threads have neighbouring frequencies: but for the ends of rows, and the inverses' scatter."""
    arguments = {"dtype": dtype, "channels": 2, "samples": 3, "grid": (8, 14), "kernel": (1, 1)}
    rows = suite.traffic(value_and_gradients, **arguments)
    whole = [row for row in rows if row.space == "global" and row.lanes == 32 * row.requests]
    assert whole
    for row in whole:
        assert row.units <= 1.5 * row.ideal
