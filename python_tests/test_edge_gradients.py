"""Gradients at the edges of functions, where versions of torch differ or a plain formula has 0 · ∞."""

import math

import pytest
import torch

from led_fast import flows, ops, reference
from led_fast.flows.contract import next_number
from led_fast.flows.elementwise import logit
from led_fast.nn import PerpendicularConv2d, PerpendicularLinear

BELOW_1 = 1 - 2**-24  # the last float32
BLACK = [[[[0.0] * 3] * 3]]
ROW = torch.tensor([[1.0, 0.0]])


def gradients(function, *at):
    """Of the sum of a function's values, at tensors of these values."""
    inputs = [torch.as_tensor(values, dtype=torch.float32).requires_grad_() for values in at]
    return [v.tolist() for v in torch.autograd.grad(function(*inputs).sum(), inputs)]


def steepness_in_use(log_steepness):
    layer = flows.Staircase(1, steps=len(log_steepness))
    del layer.log_steepness
    layer.log_steepness = log_steepness[None]
    return layer.steps_in_use()[2]


def norm_of_layer(mode):
    layer = PerpendicularLinear(2, 2, bias=False, mode=mode)
    layer.weight.data.copy_(torch.eye(2))  # x⊥ = 0 for all x
    return lambda x: layer(x)[1]


def norm_of_convolution(mode):
    layer = PerpendicularConv2d(1, 2, 2, mode=mode)
    return lambda x: layer(x)[1]


def squared_slope(function):
    return lambda x: torch.autograd.grad(function(x).sum(), x, create_graph=True)[0].square()


@pytest.mark.parametrize(
    ("function", "at", "wanted"),
    [
        (logit, ([0.0, 0.5, BELOW_1, 1.0],), [[1.0, 4.0, 2.0**24 + 1, 1.0]]),
        (steepness_in_use, ([8.0, 9.0, 9.5],), [[math.exp(8), math.exp(9), 0.0]]),
        # x⊥ = 0, with u and without; x⊥ = x where u = 0.
        (reference.perpendicular_norm, ([[3.0, 0.0]], ROW), [[[0.0, 0.0]], [[0.0, 0.0]]]),
        (reference.perpendicular_norm, ([[0.0, 0.0]], ROW), [[[0.0, 0.0]], [[0.0, 0.0]]]),
        (reference.perpendicular_norm, ([[0.0, 2.0]], ROW), [[[0.0, 1.0]], [[0.0, 0.0]]]),
        (ops.perpendicular_norm, ([[3.0, 0.0]], ROW), [[[0.0, 0.0]], [[0.0, 0.0]]]),
        (ops.perpendicular_norm, ([[0.0, 0.0]], ROW), [[[0.0, 0.0]], [[0.0, 0.0]]]),
        (ops.perpendicular_norm, ([[0.0, 2.0]], ROW), [[[0.0, 1.0]], [[0.0, 0.0]]]),
        (norm_of_layer("direction"), ([[3.0, 0.0]],), [[[0.0, 0.0]]]),
        (norm_of_layer("exact"), ([[3.0, 0.0]],), [[[0.0, 0.0]]]),
        (squared_slope(norm_of_layer("direction")), ([[3.0, 0.0]],), [[[0.0, 0.0]]]),
        (squared_slope(norm_of_layer("exact")), ([[3.0, 0.0]],), [[[0.0, 0.0]]]),
        # As a gradient penalty meets them at a black image.
        (squared_slope(norm_of_convolution("direction")), (BLACK,), [BLACK]),
        (squared_slope(norm_of_convolution("exact")), (BLACK,), [BLACK]),
    ],
)
def test_gradient_at_the_edge(function, at, wanted):
    for found, value in zip(gradients(function, *at), wanted, strict=True):
        torch.testing.assert_close(torch.tensor(found), torch.tensor(value), rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_next_numbers_are_torchs(dtype):
    precision = torch.finfo(dtype)
    values = [0.0, 9.0, -9.0, 1.0, -1.0, 2.0, 0.5, 1e-20, precision.tiny, -precision.tiny / 2, precision.eps]
    values += torch.randn(50, dtype=torch.float64).mul(40).sinh().clamp(-1e4, 1e4).tolist()
    for value in values:
        for towards in (torch.inf, -torch.inf):
            wanted = torch.nextafter(torch.tensor(value, dtype=dtype), torch.tensor(towards, dtype=dtype))
            assert next_number(value, towards, dtype) == wanted.item()
