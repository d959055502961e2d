"""The inverse of circular convolutions against the calls it replaced, plain PyTorch and the convolution itself."""

from collections.abc import Callable

import pytest
import torch
from memory import needs_counters, peak_memory

import led_fast
from led_fast import reference

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
# The cases that must be at least twice as fast as separate calls; then one image, prime and large grids, many channels,
# and a 1 x 1 grid, whose matrix is real.
CASES = [(64, 4, (16, 16)), (64, 16, (16, 16)), (64, 32, (16, 16)), (64, 64, (8, 8)), (64, 64, (4, 4))]
CASES += [(1, 4, (16, 16)), (1, 64, (8, 8)), (64, 3, (32, 32)), (16, 12, (31, 37)), (64, 128, (4, 4))]
CASES += [(16, 256, (4, 4)), (64, 64, (1, 1)), (64, 256, (1, 1)), (4, 3, (128, 128))]


def separate_calls(y: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What the flows called before: our log-determinant, and PyTorch's factorisations and solutions."""
    grid = (y.shape[-2], y.shape[-1])
    symbols = reference.circulant_symbols(weight, grid).conj()
    spectrum = torch.fft.rfft2(y).permute(2, 3, 1, 0)
    t = torch.fft.irfft2(torch.linalg.solve(symbols, spectrum).permute(3, 2, 0, 1), s=grid)
    centre = [-((k - 1) // 2) for k in weight.shape[2:]]
    return t.roll(centre, dims=(-2, -1)), -led_fast.circulant_logdet(weight, grid)


def convolution(x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The map that is undone, with its log-determinant."""
    y = torch.nn.functional.conv2d(torch.nn.functional.pad(x, [1] * 4, mode="circular"), weight)
    return y, led_fast.circulant_logdet(weight, (x.shape[-2], x.shape[-1]))


FUNCTIONS = {
    "led_fast": led_fast.circular_conv_inverse,
    "separate calls": separate_calls,
    "plain PyTorch": reference.circular_conv_inverse,
}


def make_inputs(samples: int, channels: int, grid: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    layer = led_fast.nn.CircularConv2d(channels, 3, bias=False)
    return torch.randn(samples, channels, *grid, device=DEVICE), layer.weight.detach().to(DEVICE)


def contender(
    function: Callable, y: torch.Tensor, weight: torch.Tensor, direction: str
) -> Callable[[], object]:
    if direction == "forward":
        return lambda: function(y, weight)
    leaves = y.clone().requires_grad_(), weight.clone().requires_grad_()
    grad_x = torch.randn_like(y)

    def run() -> object:
        x, log_abs_det = function(*leaves)
        return torch.autograd.grad([x, log_abs_det.sum()], leaves, [grad_x, grad_x.new_ones(())])

    return run


def case_of(samples: int, channels: int, grid: tuple[int, int], direction: str) -> dict[str, object]:
    return {"samples": samples, "C": channels, "grid": "{}x{}".format(*grid), "pass": direction}


@pytest.mark.parametrize("threads", [1], indirect=True)
@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
@pytest.mark.parametrize(("samples", "channels", "grid"), CASES, ids=str)
def test_circular_conv_inverse(compare, measuring, samples, channels, grid, direction, threads) -> None:
    if not measuring and channels > 16:
        pytest.skip("the small cases are the smoke test")
    inputs = make_inputs(samples, channels, grid)
    functions = dict(FUNCTIONS)
    if min(grid) > 1:  # no padding is wider than the image
        functions["convolution"] = convolution
    contenders = {name: contender(f, *inputs, direction) for name, f in functions.items()}
    compare("circular_conv_inverse", case_of(samples, channels, grid, direction), contenders)


@pytest.mark.skipif(CUDA, reason="threads of the CPU")
@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
@pytest.mark.parametrize(("samples", "channels", "grid"), CASES[:5], ids=str)
def test_two_threads(compare, measuring, samples, channels, grid, direction) -> None:
    if not measuring and channels > 16:
        pytest.skip("the small cases are the smoke test")
    inputs, before = make_inputs(samples, channels, grid), torch.get_num_threads()

    def with_threads(count: int) -> Callable[[], object]:
        run = contender(led_fast.circular_conv_inverse, *inputs, direction)

        def call() -> object:
            torch.set_num_threads(count)
            return run()

        return call

    try:
        contenders = {"led_fast": with_threads(2), "one thread": with_threads(1)}
        compare("circular_conv_inverse_threads", case_of(samples, channels, grid, direction), contenders)
    finally:
        torch.set_num_threads(before)


@needs_counters
@pytest.mark.parametrize("threads", [1], indirect=True)
@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
@pytest.mark.parametrize(("samples", "channels", "grid"), CASES[:5], ids=str)
def test_peak_memory(compare, measuring, samples, channels, grid, direction, threads) -> None:
    if not measuring:
        pytest.skip("nothing to smoke-test")
    inputs = make_inputs(samples, channels, grid)
    contenders = {name: contender(f, *inputs, direction) for name, f in FUNCTIONS.items()}
    peaks = {name: max(peak_memory(run), 1) for name, run in contenders.items()}
    row = compare("circular_conv_inverse_memory", case_of(samples, channels, grid, direction), contenders)
    row.figures |= {f"{name} MiB": peak / 2**20 for name, peak in peaks.items()}
    row.figures["% of plain PyTorch"] = 100 * peaks["led_fast"] / peaks["plain PyTorch"]
