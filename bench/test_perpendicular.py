"""The perpendicular norm at the layers of DCGAN critics, against its composition from PyTorch's operators.

`forward` has the output t given, as a layer has it anyway; `layer` makes t as well. `forward+backward` adds
the gradients wrt x, weight and t (of a layer: x and weight).
"""

import shutil
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import led_fast
from led_fast import reference
from led_fast.ops import _layer_map
from led_fast.ops.perpendicular import _fused_is_faster

GEOMETRY = dict(stride=2, padding=1)
# The convolutions of the critics of 32x32 and 64x64 images: channels, outs, height and width of the input.
LAYERS = {
    32: [(1, 64, 32), (3, 64, 32), (64, 128, 16), (128, 256, 8), (256, 512, 4)],
    64: [(1, 64, 64), (3, 64, 64), (64, 128, 32), (128, 256, 16), (256, 512, 8)],
}
CASES = [(image, *layer, batch) for image in LAYERS for layer in LAYERS[image] for batch in (1, 32, 128)]


def composition(x: Tensor, weight: Tensor, t: Tensor | None = None) -> Tensor:
    return reference.perpendicular_norm(x, weight, t, **GEOMETRY)


def ours(x: Tensor, weight: Tensor, t: Tensor | None = None) -> Tensor:
    return led_fast.perpendicular_norm(x, weight, t, **GEOMETRY)


def layer(norm: Callable) -> Callable:
    def run(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        t = F.conv2d(x, weight, None, **GEOMETRY)
        return t, norm(x, weight, t)

    return run


def with_backward(function: Callable, inputs: tuple[Tensor, ...]) -> Callable:
    leaves = [v.detach().requires_grad_() for v in inputs]
    outputs = function(*leaves)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    ones = [torch.ones_like(v) for v in outputs]
    return lambda: torch.autograd.grad(function(*leaves), leaves, ones)


@pytest.fixture(scope="module")
def compiled(measuring: bool) -> Callable | None:
    """torch.compile takes seconds a shape and needs a C++ compiler; without it that column stays empty."""
    if not measuring or not shutil.which("g++"):
        return None
    torch._dynamo.reset()
    torch._dynamo.config.recompile_limit = 64
    return torch.compile(composition, dynamic=False)


@pytest.mark.parametrize("threads", [1], indirect=True)
@pytest.mark.parametrize("what", ["forward", "forward+backward", "layer", "layer+backward"])
@pytest.mark.parametrize("image, channels, outs, size, batch", CASES)
def test_perpendicular(compare, compiled, threads, what, image, channels, outs, size, batch):
    torch.manual_seed(0)
    x, weight = torch.randn(batch, channels, size, size), 0.05 * torch.randn(outs, channels, 4, 4)
    inputs = (x, weight) if what.startswith("layer") else (x, weight, F.conv2d(x, weight, None, **GEOMETRY))
    functions = {"led_fast": ours, "composition": composition}
    if compiled and what == "forward" and batch == 32:
        functions["compile"] = compiled
    contenders = {}
    for name, norm in functions.items():
        function = layer(norm) if what.startswith("layer") else norm
        if what.endswith("backward"):
            contenders[name] = with_backward(function, inputs)
        else:
            contenders[name] = lambda function=function: function(*inputs)
    if what != "forward+backward":  # there, only the sum over the ways from x and weight is one and the same
        for a, b in zip(contenders["led_fast"](), contenders["composition"](), strict=True):
            torch.testing.assert_close(a, b, atol=1e-3 * b.abs().max().item(), rtol=0)
    compare(
        "perpendicular",
        {
            "what": what,
            "image": image,
            "layer": f"{channels}->{outs}@{size}",
            "batch": batch,
            "threads": threads,
        },
        contenders,
    )


# Around the borders of the choices in led_fast/ops/perpendicular.py: few channels, many channels, other kernels.
CROSSOVER = [(c, 64, size, 4, 2) for c in (1, 3, 4, 5, 8) for size in (8, 32)]
CROSSOVER += [(c, 2 * c, size, 4, 2) for c in (16, 64, 256) for size in (4, 8, 16)]
CROSSOVER += [(c, 32, 16, kernel, 1) for c in (2, 4, 8) for kernel in (3, 5)]


@pytest.mark.parametrize("threads", [1], indirect=True)
@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("channels, outs, size, kernel, stride", CROSSOVER)
def test_choice_of_the_kernel(compare, threads, channels, outs, size, kernel, stride, batch):
    """What the operator takes ("led_fast") beside each of the ways that it has to choose from."""
    torch.manual_seed(0)
    x, weight = torch.randn(batch, channels, size, size), 0.05 * torch.randn(outs, channels, kernel, kernel)
    geometry = [stride] * 2, [1, 1], [1, 1], 1
    t = F.conv2d(x, weight, None, *geometry)

    def library() -> Tensor:
        u = _layer_map.transpose(t, weight, x.shape, geometry)
        return torch.ops.led_fast.perpendicular_norm_to(x, u)[0]

    contenders = {
        "led_fast": lambda: led_fast.perpendicular_norm(x, weight, t, stride, 1),
        "fused kernel": lambda: torch.ops.led_fast.perpendicular_norm(x, weight, t, *geometry, False)[0],
        "library": library,
    }
    layer = f"{channels}->{outs}@{size}, {kernel}x{kernel}/{stride}"
    row = compare("perpendicular_crossover", {"layer": layer, "batch": batch}, contenders)
    row.figures["takes the fused kernel"] = float(_fused_is_faster(x, weight, geometry))
