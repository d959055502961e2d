"""The leaky ReLU whose second derivative costs nothing."""

import pytest
import torch
from torch import nn

from led_fast.nn import InplaceLeakyReLU


@pytest.mark.parametrize("gradients", [True, False])
def test_is_torchs_in_place(gradients):
    x = torch.randn(5, 3, requires_grad=gradients)
    given = x * 1
    out = InplaceLeakyReLU(0.2)(given)
    assert out.data_ptr() == given.data_ptr()
    assert torch.equal(out, nn.LeakyReLU(0.2)(x))


def nets():
    torch.manual_seed(0)
    ours = nn.Sequential(
        nn.Linear(4, 6), InplaceLeakyReLU(0.2), nn.Linear(6, 5), InplaceLeakyReLU(0.2), nn.Linear(5, 1)
    )
    plain = nn.Sequential(
        nn.Linear(4, 6), nn.LeakyReLU(0.2), nn.Linear(6, 5), nn.LeakyReLU(0.2), nn.Linear(5, 1)
    )
    plain.load_state_dict(ours.state_dict())
    return ours.double(), plain.double()


def test_gradients_and_a_penalty_on_them_are_torchs():
    x = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    found = []
    for net in nets():
        first = torch.autograd.grad(net(x).sum(), [x, *net.parameters()])
        (by_x,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
        by_x.square().sum().backward()
        # Of zeros ours makes None.
        found.append([*first, *(torch.zeros_like(p) if p.grad is None else p.grad for p in net.parameters())])
    torch.testing.assert_close(*found)


def test_a_penalty_does_not_go_back_through_the_values():
    passes = []
    for net in nets():
        x = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
        inner = net[0](x)
        inner.register_hook(passes.append)
        (by_x,) = torch.autograd.grad(net[1:](inner * 1).sum(), x, create_graph=True)
        before = len(passes)
        by_x.square().sum().backward()
        passes.append(len(passes) - before)
    ours, plain = (count for count in passes if isinstance(count, int))
    assert (ours, plain) == (0, 1)  # of zeros
