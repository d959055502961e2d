"""The layers that return ‖x⊥‖ beside their output."""

import copy
import pickle

import pytest
import torch

from led_fast import perpendicular
from led_fast.nn import PerpendicularConv2d, PerpendicularLinear, PerpendicularSequential


@pytest.mark.parametrize("mode", ["direction", "exact"])
@pytest.mark.parametrize("bias", [True, False])
def test_layers_compute_what_torch_computes(mode, bias):
    torch.manual_seed(0)
    ours = PerpendicularConv2d(4, 6, (3, 4), stride=2, padding=(1, 0), groups=2, bias=bias, mode=mode)
    plain = torch.nn.Conv2d(4, 6, (3, 4), stride=2, padding=(1, 0), groups=2, bias=bias)
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(3, 4, 9, 8)
    t, norm = ours(x)
    torch.testing.assert_close(t, plain(x))
    rest = perpendicular(x, ours.weight, stride=2, padding=(1, 0), groups=2, mode=mode)
    torch.testing.assert_close(norm, rest.flatten(1).norm(dim=1))

    ours, plain = PerpendicularLinear(7, 3, bias, mode), torch.nn.Linear(7, 3, bias)
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(4, 7)
    t, norm = ours(x)
    torch.testing.assert_close(t, plain(x))
    torch.testing.assert_close(norm, perpendicular(x, ours.weight, mode=mode).norm(dim=1))


@pytest.mark.parametrize(
    "layer", [PerpendicularConv2d(3, 4, 3, mode="exact"), PerpendicularLinear(3, 4)], ids=repr
)
def test_layers_are_copied_and_pickled(layer):
    x = torch.randn(2, 3, *([5, 5] if isinstance(layer, PerpendicularConv2d) else []))
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert repr(other) == repr(layer)
        for a, b in zip(other(x), layer(x), strict=True):
            assert torch.equal(a, b)


def test_sequential_adds_up():
    first, second = PerpendicularConv2d(3, 4, 3), PerpendicularLinear(36, 2)
    layers = (first, torch.nn.ReLU(), torch.nn.Flatten(), second)
    x = torch.randn(2, 3, 5, 5)
    h, norm = first(x)
    y, other = second(h.relu().flatten(1))
    for squared in (False, True):
        out, total = PerpendicularSequential(*layers, squared=squared)(x)
        torch.testing.assert_close(out, y)
        torch.testing.assert_close(total, norm**2 + other**2 if squared else norm + other)


def test_gradient_penalty():
    layer = PerpendicularConv2d(3, 8, 4, stride=2, padding=1)
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(x)[1].sum(), x, create_graph=True)
    gradient.flatten(1).norm(dim=1).sum().backward()
    assert layer.weight.grad.isfinite().all() and layer.weight.grad.abs().sum() > 0


def test_bad_arguments_of_layers():
    with pytest.raises(ValueError, match="padding_mode must be 'zeros', got 'circular'"):
        PerpendicularConv2d(3, 4, 3, padding_mode="circular")
    with pytest.raises(ValueError, match="padding must be an integer or a pair"):
        PerpendicularConv2d(3, 4, 3, padding="same")
    for layer in (
        lambda: PerpendicularConv2d(3, 4, 3, mode="fast"),
        lambda: PerpendicularLinear(3, 4, mode="fast"),
    ):
        with pytest.raises(ValueError, match="mode must be one of"):
            layer()
    with pytest.raises(ValueError, match="perpendicular: mode must be one of"):
        perpendicular(torch.zeros(2, 4, 8, 8), torch.zeros(6, 4, 3, 3), mode="fast")
