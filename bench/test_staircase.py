"""The staircase and its inverse against eager PyTorch, torch.compile, and the inverse in Python of commit c092c34."""

import shutil
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import led_fast
from led_fast import reference

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
SHAPES = [(512, 2), *((64, features, size, size) for features in (1, 4, 16) for size in (16, 32))]


def parameters_of(features: int, steps: int) -> tuple[Tensor, ...]:
    """As a layer has them a while into its training."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(3, features, steps, generator=generator).to(DEVICE)
    centers = torch.linspace(-1.8, 1.8, steps, device=DEVICE) + 0.3 * noise[0]
    return (
        centers,
        (0.5 * noise[1] - 2).exp(),
        (0.5 * noise[2] + 1).exp(),
        torch.ones(features, device=DEVICE),
    )


def derivatives(
    t: Tensor, centers: Tensor, heights: Tensor, steepness: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor]:
    tanh = torch.tanh(steepness * (t[..., None] - centers))
    return tanh, slope + (heights * steepness * (1 - tanh.square())).sum(-1)


def table_and_newton(out: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
    """`led_fast.flows.inverse` of a Staircase as it was at commit c092c34, for float32."""
    centers, heights, steepness, slope = (part.detach() for part in parameters)

    def value_and_slope(t: Tensor) -> tuple[Tensor, Tensor]:
        last = t.movedim(1, -1)
        tanh, derivative = derivatives(last, centers, heights, steepness, slope)
        value = (heights * tanh).sum(-1) + slope * last
        return value.movedim(-1, 1), derivative.movedim(-1, 1)

    with torch.no_grad():
        target = out.detach()
        targets = out.transpose(0, 1).flatten(1).contiguous()
        ends = torch.stack([targets.amin(1) - heights.sum(1), targets.amax(1) + heights.sum(1)]) / slope
        shares = torch.linspace(0, 1, 2048, dtype=out.dtype, device=out.device)
        places = torch.lerp(ends[0], ends[1], shares[:, None])
        table = value_and_slope(places)[0].mT.contiguous()
        index = torch.searchsorted(table, targets).clamp(1, 2047)
        low, high, below, above = (
            rows.gather(1, at).view(out.shape[1], len(out), *out.shape[2:]).transpose(0, 1)
            for rows in (places.mT, table)
            for at in (index - 1, index)
        )
        t = low + (high - low) * ((out - below) / (above - below)).clamp(0, 1)
        for _ in range(60):
            value, rise = value_and_slope(t)
            error = value - target
            low, high = torch.where(error < 0, t, low), torch.where(error > 0, t, high)
            newton = t - error / rise
            step = torch.where((newton >= low) & (newton <= high), newton, 0.5 * (low + high))
            moved = (step - t).abs() > 1e-4 * (1 + t.abs())
            t = step
            if not bool(moved.any()):
                break
        rise = value_and_slope(t)[1]
    t = t - (reference.staircase(t, *parameters)[0] - out) / rise
    return t, reference.staircase(t, *parameters)[1]


@pytest.fixture(scope="module")
def compiled(measuring: bool) -> Callable | None:
    """torch.compile takes seconds a shape and needs a C++ compiler; without it that column stays empty."""
    if not measuring or not (CUDA or shutil.which("g++")):
        return None
    return torch.compile(reference.staircase, dynamic=False)


@pytest.mark.parametrize("threads", [1], indirect=True)
@pytest.mark.parametrize("direction", ["forward", "forward+backward", "inverse", "inverse+backward"])
@pytest.mark.parametrize("steps", [4, 8])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_staircase(compare, compiled, shape, steps, direction, threads) -> None:
    x, parameters = torch.randn(shape, device=DEVICE), parameters_of(shape[1], steps)
    if direction.startswith("inverse"):
        functions = {"led_fast": led_fast.staircase_inverse, "Newton in Python": table_and_newton}
    else:
        functions = {"led_fast": led_fast.staircase, "eager": reference.staircase}
        if compiled is not None:
            functions["torch.compile"] = compiled
    case = {"shape": "x".join(map(str, shape)), "steps": steps, "pass": direction, "threads": threads}
    backward = direction.endswith("backward")
    leaves = [v.clone().requires_grad_(backward) for v in (x, *parameters)]
    gradients = [torch.randn_like(x), torch.randn(len(x), device=DEVICE)]

    def run(function: Callable) -> object:
        outputs = function(*leaves)
        return torch.autograd.grad(outputs, leaves, gradients) if backward else outputs

    with torch.set_grad_enabled(backward):
        compare("staircase", case, {name: lambda f=f: run(f) for name, f in functions.items()})
