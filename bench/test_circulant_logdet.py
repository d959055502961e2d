"""The circulant log-determinant against PyTorch's half- and full-spectrum compositions and sgemm."""

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from memory import needs_counters, peak_memory

import led_fast
from led_fast import reference

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
CHANNELS = [1, 3, 8, 13, 16, 32, 64, 96, 128, 160, 256, 512]
GRIDS = [(4, 4), (7, 7), (8, 8), (16, 16), (17, 17), (16, 31), (32, 32), (64, 64)]
COMPILED_GRIDS = [(16, 16), (17, 17)]
MOST_FLOPS = 1.3e10  # of a forward pass: a second or so in PyTorch

# Every number of channels on three grids (the largest on a small one), every grid at two numbers of channels; batches.
CASES = [(1, c, g) for c in CHANNELS for g in GRIDS if g in [(16, 16), (17, 17), (32, 32)] or c in (16, 64)]
CASES += [(1, c, (8, 8)) for c in (256, 512)]
CASES += [(8, c, g) for c in (3, 16, 64) for g in [(8, 8), (17, 17)]]


def flops(batch: int, channels: int, grid: tuple[int, int], backward: bool = False) -> float:
    """Real operations of LU factorisations (with inverses: thrice as many) at half of the frequencies."""
    rows, columns = grid
    fixed = (2 - rows % 2) * (2 - columns % 2)  # frequencies that are their own mirrors
    return batch * 8 / 3 * channels**3 * (rows * columns + fixed) / 2 * (3 if backward else 1)


def full_spectrum(weight: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """What one writes first: all symbols, mirrored ones too."""
    symbols = torch.fft.fft2(weight, s=grid).movedim((-4, -3), (-2, -1))
    return torch.linalg.slogdet(symbols).logabsdet.sum((-2, -1))


def random_weight(batch: int, channels: int, requires_grad: bool = False) -> torch.Tensor:
    shape = (channels, channels, 3, 3) if batch == 1 else (batch, channels, channels, 3, 3)
    weight = torch.randn(shape, device=DEVICE) / math.sqrt(9 * channels)
    return weight.requires_grad_(requires_grad)


def contender(function: Callable, weight: torch.Tensor, grid: tuple[int, int]) -> Callable[[], object]:
    if weight.requires_grad:
        return lambda: torch.autograd.grad(function(weight, grid).sum(), weight)
    return lambda: function(weight, grid)


@pytest.mark.parametrize("threads", [1], indirect=True)
@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
@pytest.mark.parametrize(
    ("batch", "channels", "grid"), [case for case in CASES if flops(*case) < MOST_FLOPS], ids=str
)
@pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex operators")
def test_circulant_logdet(compare, measuring, batch, channels, grid, direction, threads) -> None:
    if not measuring and flops(batch, channels, grid) > 1e8:
        pytest.skip("the small cases are the smoke test")
    backward = direction != "forward"
    weight = random_weight(batch, channels, backward)
    functions = {
        "led_fast": led_fast.circulant_logdet,
        "half spectrum": reference.circulant_logdet,
        "full spectrum": full_spectrum,
    }
    if min(grid) < 3 or flops(batch, channels, grid) > MOST_FLOPS / 8:
        del functions["full spectrum"]
    if batch == 1 and grid in COMPILED_GRIDS:  # Inductor leaves complex operators to eager: long to compile
        torch.compiler.reset()
        functions["torch.compile"] = torch.compile(reference.circulant_logdet)
    contenders = {name: contender(f, weight, grid) for name, f in functions.items()}
    matrix = torch.randn(512, 512, device=DEVICE)
    contenders["sgemm"] = lambda: matrix @ matrix
    case = {"batch": batch, "C": channels, "grid": "{}x{}".format(*grid), "pass": direction}
    row = compare("circulant_logdet", case, contenders)
    if not measuring:
        return
    rate = flops(batch, channels, grid, backward) / row.seconds["led_fast"]
    row.figures["GFLOP/s"] = rate / 1e9
    row.figures["share of sgemm"] = rate / (2 * 512**3 / row.seconds["sgemm"])


@pytest.mark.skipif(CUDA, reason="threads of the CPU")
@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
@pytest.mark.parametrize("channels", [8, 32, 64, 128])
def test_two_threads(compare, channels, direction) -> None:
    weight, before = random_weight(1, channels, direction != "forward"), torch.get_num_threads()

    def with_threads(count: int) -> Callable[[], object]:
        run = contender(led_fast.circulant_logdet, weight, (32, 32))

        def call() -> object:
            torch.set_num_threads(count)
            return run()

        return call

    try:
        contenders = {"led_fast": with_threads(2), "one thread": with_threads(1)}
        compare("circulant_logdet_threads", {"C": channels, "grid": "32x32", "pass": direction}, contenders)
    finally:
        torch.set_num_threads(before)


@needs_counters
@pytest.mark.parametrize("threads", [1], indirect=True)
@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
@pytest.mark.parametrize(
    ("channels", "grid"), [(32, (32, 32)), (64, (32, 32)), (128, (16, 16)), (256, (16, 16))], ids=str
)
def test_peak_memory(compare, measuring, channels, grid, direction, threads) -> None:
    if not measuring:
        pytest.skip("nothing to smoke-test")
    weight = random_weight(1, channels, direction != "forward")
    functions = {"led_fast": led_fast.circulant_logdet, "half spectrum": reference.circulant_logdet}
    contenders = {name: contender(f, weight, grid) for name, f in functions.items()}
    peaks = {name: max(peak_memory(run), 1) for name, run in contenders.items()}
    case = {"C": channels, "grid": "{}x{}".format(*grid), "pass": direction}
    row = compare("circulant_logdet_memory", case, contenders)
    row.figures |= {f"{name} MiB": peak / 2**20 for name, peak in peaks.items()}
    row.figures["% of half spectrum"] = 100 * peaks["led_fast"] / peaks["half spectrum"]


GROWTH = {
    "grid cells (32 channels)": [(n * n, 32, (n, n)) for n in (4, 8, 16, 32, 64)],
    "channels (16 x 16 grid)": [(c, c, (16, 16)) for c in (8, 16, 32, 64, 128, 256)],
}


@pytest.fixture(scope="module")
def growth(request, measuring) -> Iterator[dict[str, list[tuple[int, dict[str, float]]]]]:
    """Collects (size, seconds of each contender); then draws them with the exponents of the last three sizes."""
    points: dict[str, list[tuple[int, dict[str, float]]]] = {label: [] for label in GROWTH}
    yield points
    if not measuring or any(len(points[label]) < len(GROWTH[label]) for label in GROWTH):
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, (label, series) in zip(axes, points.items(), strict=True):
        sizes = [size for size, _ in series]
        for name in ("led_fast", "half spectrum"):
            seconds = [row[name] for _, row in series]
            exponent = math.log(seconds[-1] / seconds[-3]) / math.log(sizes[-1] / sizes[-3])
            axis.loglog(sizes, [1e3 * t for t in seconds], "o-", label=f"{name}: exponent {exponent:.2f}")
        axis.set(xlabel=label, ylabel="milliseconds, forward, one thread")
        axis.legend()
    out = request.config.getoption("--benchmark-out")
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / f"circulant_logdet_growth_{DEVICE}.png", dpi=120)


@pytest.mark.parametrize("threads", [1], indirect=True)
@pytest.mark.parametrize(
    ("label", "size", "channels", "grid"),
    [(label, *point) for label, series in GROWTH.items() for point in series],
    ids=str,
)
def test_growth(compare, measuring, growth, label, size, channels, grid, threads) -> None:
    if not measuring:
        pytest.skip("nothing to smoke-test")
    weight = random_weight(1, channels)
    functions = {"led_fast": led_fast.circulant_logdet, "half spectrum": reference.circulant_logdet}
    contenders = {name: contender(f, weight, grid) for name, f in functions.items()}
    case = {"C": channels, "grid": "{}x{}".format(*grid)}
    growth[label].append((size, compare("circulant_logdet_growth", case, contenders).seconds))
