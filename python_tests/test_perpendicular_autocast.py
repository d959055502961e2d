"""The perpendicular part of an x in low precision under autocast, where weights are float32."""

from collections.abc import Callable

import pytest
import torch
from perpendicular_cases import CASES
from torch import Tensor

from led_fast import perpendicular, perpendicular_norm
from led_fast.models import DCGANCritic
from led_fast.nn import PerpendicularConv2d, PerpendicularLinear

LOW = [torch.bfloat16, torch.float16]
FUNCTIONS = {
    "norm": perpendicular_norm,
    "direction": lambda *a, **g: perpendicular(*a, **g).flatten(1).square().sum(1),
    "exact": lambda *a, **g: perpendicular(*a, mode="exact", **g).flatten(1).square().sum(1),
}
INPUTS = {
    "linear": lambda: (torch.randn(4, 9), torch.randn(5, 9), {}),
    **{name: CASES[name] for name in ("image", "dcgan, many tiles", "library", "grouped")},
}


def penalty(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The function's values, its gradient wrt x, and a gradient penalty, whose slope float16 can hold."""
    value = function(x)
    (gradient,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    return value, gradient, (1 + gradient.float().flatten(1).square().sum(1)).sqrt().sum()


@pytest.mark.parametrize("dtype", LOW, ids=str)
@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_x_is_widened(function, name, dtype):
    """Values and derivatives of the first and second order are those of x in float32."""
    x, weight, g = INPUTS[name]()
    x, weight = x.to(dtype).requires_grad_(), weight.float().requires_grad_()
    value_of = FUNCTIONS[function]

    def under_autocast(x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype):
            return value_of(x, weight, **g)

    value, gradient, loss = penalty(under_autocast, x)
    wanted_value, wanted_gradient, wanted_loss = penalty(lambda x: value_of(x.float(), weight, **g), x)
    assert (value.dtype, gradient.dtype) == (torch.float32, dtype)
    torch.testing.assert_close(
        value, value_of(x.double(), weight.double(), **g).float(), atol=1e-4, rtol=1e-4
    )
    assert torch.equal(value, wanted_value) and torch.equal(gradient, wanted_gradient)
    if function != "exact" or name != "linear":
        assert gradient.abs().max() > 0
    got, wanted = (torch.autograd.grad(v, (x, weight)) for v in (loss, wanted_loss))
    assert got[1].dtype == torch.float32 and all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


@pytest.mark.parametrize("name", ["image", "dcgan, many tiles", "library"])
def test_gradients_of_convolutions_keep_their_digits_inside_of_the_block(name):
    x, weight, g = CASES[name]()
    x, weight = x.float().requires_grad_(), weight.float().requires_grad_()

    def derivatives() -> list[Tensor]:
        value, gradient, loss = penalty(lambda x: perpendicular_norm(x, weight, **g), x)
        return [value, gradient, *torch.autograd.grad(loss, (x, weight)), *plain_gradients()]

    def plain_gradients() -> tuple[Tensor, ...]:
        return torch.autograd.grad(perpendicular_norm(x, weight, **g).sum(), (x, weight))

    wanted = derivatives()
    with torch.autocast("cpu", torch.bfloat16):
        got = derivatives()
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


@pytest.mark.parametrize("dtype", LOW, ids=str)
@pytest.mark.parametrize("mode", ["direction", "exact"])
@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_layers(kind, mode, dtype):
    torch.manual_seed(0)
    if kind == "linear":
        layer, x = PerpendicularLinear(9, 4, mode=mode), torch.randn(5, 9)
    else:
        layer, x = PerpendicularConv2d(3, 6, 4, 2, 1, mode=mode), torch.randn(5, 3, 8, 8)
    x = x.to(dtype).requires_grad_()

    def norm_under_autocast(x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype):
            t, norm = layer(x)
        assert (t.dtype, norm.dtype) == (dtype, torch.float32)
        return norm

    results = []
    for norm in (norm_under_autocast, lambda x: layer(x.float())[1]):
        value, gradient, loss = penalty(norm, x)
        results.append((value, gradient.float(), *torch.autograd.grad(loss, (layer.weight,))))
    for got, wanted in zip(*results, strict=True):
        assert (got - wanted).abs().max() <= 0.02 * wanted.abs().max()


@pytest.mark.parametrize("dtype", LOW, ids=str)
@pytest.mark.parametrize("mode", ["direction", "exact"])
def test_a_critic_with_a_gradient_penalty(mode, dtype):
    torch.manual_seed(0)
    critic, x = DCGANCritic(32, channels=1, width=8, penalty=mode), torch.rand(2, 1, 32, 32).requires_grad_()

    def value_under_autocast(x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype):
            return critic(x)

    gradients = []
    for function in (value_under_autocast, critic):
        value, gradient, loss = penalty(function, x)
        assert value.dtype == gradient.dtype == torch.float32
        of_parameters = torch.autograd.grad(loss - value.sum(), critic.parameters(), allow_unused=True)
        gradients.append(torch.cat([v.flatten() for v in of_parameters if v is not None]))
    got, wanted = gradients
    assert (got - wanted).norm() <= 0.05 * wanted.norm()
