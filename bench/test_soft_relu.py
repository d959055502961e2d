"""soft-ReLU against eager PyTorch, torch.compile, and a plain copy of its input."""

import shutil
from collections.abc import Callable

import pytest
import torch

import led_fast
from led_fast import reference
from led_fast.nn import SoftReLU
from led_fast.ops.soft_relu_per_feature import of_slopes

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
# From one element to the largest layer of a DCGAN; the last one is the shape that the figures are stated for.
SHAPES = [(1, 1), (8, 16), (256, 256), (8192, 2), (64, 16, 16, 16), (1, 1_000_003), (64, 96, 32, 32)]
if CUDA:
    SHAPES.append((1024, 256, 32, 32))


@pytest.fixture(scope="module")
def compiled(measuring: bool) -> Callable | None:
    """torch.compile takes seconds a shape and needs a C++ compiler; without it that column stays empty."""
    if not measuring or not (CUDA or shutil.which("g++")):
        return None
    return torch.compile(reference.soft_relu, dynamic=False)


@pytest.mark.parametrize("threads", [1] if CUDA else [1, 2], indirect=True)
@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_soft_relu(compare, compiled, shape, dtype, direction, threads) -> None:
    x = torch.randn(shape, device=DEVICE, dtype=dtype)
    functions = {"led_fast": led_fast.soft_relu, "eager": reference.soft_relu}
    if compiled is not None:
        functions["torch.compile"] = compiled
    case = {
        "shape": "x".join(map(str, shape)),
        "dtype": str(dtype)[6:],
        "pass": direction,
        "threads": threads,
    }
    if direction == "forward":
        contenders = {name: lambda f=f: f(x) for name, f in functions.items()}
        contenders["clone"] = lambda: x.clone()
        moved = 2 * x.nbytes
    else:
        leaf = x.clone().requires_grad_()
        y, log_abs_det = led_fast.soft_relu(x)
        gradients = [torch.randn_like(y), torch.randn_like(log_abs_det)]
        contenders = {
            name: lambda f=f: torch.autograd.grad(f(leaf), leaf, gradients) for name, f in functions.items()
        }
        moved = 5 * x.nbytes
    with torch.set_grad_enabled(direction != "forward"):
        row = compare("soft_relu", case, contenders)
    if "clone" in row.seconds:
        row.figures["share of clone"] = row.ratio("clone")
    row.figures["GB/s"] = moved / row.seconds["led_fast"] / 1e9


def host_loop(y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How flows were inverted before: a bracket, Newton's steps, and a question to the host after each."""
    layer = SoftReLU()
    ratio, sharpness = layer.beta / layer.alpha, layer.alpha - layer.beta

    def slope(t: torch.Tensor) -> torch.Tensor:
        return ratio + (1 - ratio) * torch.sigmoid(sharpness * t)

    with torch.no_grad():
        reach = (layer(torch.zeros_like(y))[0] - y) / -ratio
        low, high, t = reach.clamp(max=0), reach.clamp(min=0), 0.5 * reach
        for _ in range(60):
            error = layer(t)[0] - y
            low, high = torch.where(error < 0, t, low), torch.where(error > 0, t, high)
            newton = t - error / slope(t)
            step = torch.where((newton >= low) & (newton <= high), newton, 0.5 * (low + high))
            moved = (step - t).abs() > 1e-4 * (1 + t.abs())
            t = step
            if not bool(moved.any()):
                break
        last_slope = slope(t)
    t = t - (layer(t)[0] - y) / last_slope
    return t, layer(t)[1]


@pytest.mark.parametrize("threads", [1], indirect=True)
@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_soft_relu_inverse(compare, shape, direction, threads) -> None:
    x = torch.randn(shape, device=DEVICE)
    y, log_abs_det = led_fast.soft_relu(x)
    functions = {
        "led_fast": led_fast.soft_relu_inverse,
        "eager": reference.soft_relu_inverse,
        "host loop": host_loop,
    }
    case = {"shape": "x".join(map(str, shape)), "pass": direction, "threads": threads}
    if direction == "forward":
        contenders = {name: lambda f=f: f(y) for name, f in functions.items()}
        contenders["soft_relu"] = lambda: led_fast.soft_relu(x)
    else:
        leaf, other_leaf, gradients = y.clone().requires_grad_(), x.clone().requires_grad_(), [y, log_abs_det]
        contenders = {
            name: lambda f=f: torch.autograd.grad(f(leaf), leaf, gradients) for name, f in functions.items()
        }
        contenders["soft_relu"] = lambda: torch.autograd.grad(
            led_fast.soft_relu(other_leaf), other_leaf, gradients
        )
    with torch.set_grad_enabled(direction != "forward"):
        compare("soft_relu_inverse", case, contenders)


@pytest.mark.parametrize("threads", [1], indirect=True)
@pytest.mark.parametrize("direction", ["forward", "forward+backward", "inverse", "inverse+backward"])
@pytest.mark.parametrize(
    "shape", [s for s in SHAPES if s != (1, 1_000_003)], ids=lambda shape: "x".join(map(str, shape))
)
def test_soft_relu_per_feature(compare, shape, direction, threads) -> None:
    inverse = direction.startswith("inverse")
    x = torch.randn(shape, device=DEVICE)
    ratio, sharpness, u0, t0 = (
        torch.full(shape[1:2], value, device=DEVICE) for value in (1 / 5.8, 4.8, 0.1, 0.12)
    )
    parameters, gradients = [ratio, sharpness, u0, t0], [x, torch.randn(shape[0], device=DEVICE)]
    functions = {
        "led_fast": lambda *leaves: of_slopes(*leaves, inverse),
        "eager": lambda *leaves: reference.soft_relu_per_feature(*leaves, inverse),
    }
    scalar = led_fast.soft_relu_inverse if inverse else led_fast.soft_relu
    case = {"shape": "x".join(map(str, shape)), "pass": direction, "threads": threads}
    with torch.set_grad_enabled("backward" in direction):
        if "backward" in direction:
            leaves = [t.clone().requires_grad_() for t in (x, *parameters)]
            contenders = {
                name: lambda f=f: torch.autograd.grad(f(*leaves), leaves, gradients)
                for name, f in functions.items()
            }
            contenders["scalar"] = lambda: torch.autograd.grad(
                scalar(leaves[0], 5.8, 1.0, 0.1, 0.12), leaves[0], gradients
            )
        else:
            contenders = {name: lambda f=f: f(x, *parameters) for name, f in functions.items()}
            contenders["scalar"] = lambda: scalar(x, 5.8, 1.0, 0.1, 0.12)
        compare("soft_relu_per_feature", case, contenders)
