"""Fourier features beside a product, sines and cosines: of the critic's points, from one to a large batch."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import led_fast
from led_fast import reference

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Samples, dimension, directions; the critic of points has 64 directions of the plane.
SHAPES = [(1, 2, 64), (256, 2, 64), (640, 2, 128), (640, 8, 64), (65_536, 2, 64)]


def forward(function: Callable, x: Tensor, projection: Tensor, grad: Tensor) -> Tensor:
    with torch.no_grad():
        return function(x, projection)


def with_gradient(function: Callable, x: Tensor, projection: Tensor, grad: Tensor) -> Tensor:
    return torch.autograd.grad(function(x, projection), x, grad)[0]


def with_penalty(function: Callable, x: Tensor, projection: Tensor, grad: Tensor) -> Tensor:
    """As a gradient penalty takes it: the gradient of a gradient's norm."""
    (gradient,) = torch.autograd.grad(function(x, projection), x, grad, create_graph=True)
    return torch.autograd.grad(gradient.square().sum(), x)[0]


CALLS = {"forward": forward, "forward+backward": with_gradient, "penalty": with_penalty}


@pytest.mark.parametrize("threads", [1], indirect=True)
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_fourier_features(compare, shape, call, threads) -> None:
    samples, dimension, directions = shape
    x = torch.randn(samples, dimension, device=DEVICE, requires_grad=True)
    projection = 8 * torch.randn(dimension, directions, device=DEVICE)
    inputs = x, projection, torch.randn(samples, dimension + 2 * directions, device=DEVICE)
    functions = {"led_fast": led_fast.fourier_features, "eager": reference.fourier_features}
    contenders = {name: lambda f=f: CALLS[call](f, *inputs) for name, f in functions.items()}
    compare("fourier_features", {"shape": "x".join(map(str, shape)), "pass": call}, contenders)
