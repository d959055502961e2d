"""Layers of image flows against the brute-force Jacobian in fp64."""

import pytest
import torch
from flow_oracles import brute_force_ladj, randomize
from torch import nn

from led_fast.flows import (
    ChannelShuffle,
    Coupling,
    PairNeighbors,
    PixelShuffle,
    Unflatten,
    forward_with_score,
)
from led_fast.nn import CircularConv2d


class Network(nn.Module):
    """A small network of 2 outs channels that looks at neighbours."""

    def __init__(self, given: int, outs: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(given, 5, 3, padding=1), nn.Tanh(), nn.Conv2d(5, 2 * outs, 3, padding=1)
        )

    def forward(self, t):
        return self.net(t)


LAYERS = {
    "unflatten": lambda: Unflatten(2, 12, 4),
    "pixel_shuffle": lambda: PixelShuffle(2),
    "channel_shuffle": lambda: ChannelShuffle(2),
    "columns": lambda: PairNeighbors("columns"),
    "rows": lambda: PairNeighbors("rows"),
    "conv": lambda: CircularConv2d(4, 3),
    "conv_even": lambda: CircularConv2d(4, (2, 4)),
    "conv_wraps": lambda: CircularConv2d(4, (7, 5)),
    "coupling": lambda: Coupling(Network(1, 3), 4, 1),
    "coupling_last": lambda: Coupling(Network(3, 1), 4, 3, given_first=False),
    "coupling_whitens": lambda: Coupling(Network(3, 1), 4, 3, given_first=False, whiten=True),
}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def trained_like(name: str) -> nn.Module:
    return randomize(LAYERS[name]().double(), 0.15)


@pytest.mark.parametrize("name", LAYERS)
def test_ladj_is_the_jacobians(name):
    layer, t = trained_like(name), torch.randn(2, 4, 4, 6, dtype=torch.float64)
    if name == "unflatten":
        t = t.flatten(1)
    _, ladj = layer(t)
    expected = brute_force_ladj(layer, t)
    assert ladj.shape == (2,)
    assert expected.abs().min() > 1e-2 or not list(layer.parameters())
    torch.testing.assert_close(ladj, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("attached", [False, True])
def test_score_rule_agrees_with_the_full_jacobian(name, attached):
    layer = trained_like(name)
    t, score = torch.randn(2, 2, 4, 4, 6, dtype=torch.float64)
    if name == "unflatten":
        t, score = t.flatten(1), score.flatten(1)
    if attached:  # as it is in a flow, behind other layers
        t = 1.0 * t.requires_grad_()
    out, ladj, fast = forward_with_score(layer, t, score)
    slow_out, slow_ladj, slow = forward_with_score.dispatch(object)(layer, t, score)
    torch.testing.assert_close(out, slow_out)
    torch.testing.assert_close(ladj, slow_ladj)
    torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-9)
    assert not fast.requires_grad


@pytest.mark.parametrize("given_first", [True, False])
def test_coupling_is_what_it_says(given_first):
    layer = Coupling(Network(2, 2), 4, 2, given_first, bound=0.5).double()
    t = torch.randn(3, 4, 5, 5, dtype=torch.float64)
    first, second = t.chunk(2, dim=1)
    given, changed = (first, second) if given_first else (second, first)
    mean, raw = layer.network(given).chunk(2, dim=1)
    moved = changed * (0.5 * torch.tanh(raw / 0.5)).exp() + mean
    expected = torch.cat([given, moved] if given_first else [moved, given], dim=1)
    torch.testing.assert_close(layer(t)[0], expected)
    layer.whiten = True
    back = (moved - mean) / (0.5 * torch.tanh(raw / 0.5)).exp()
    torch.testing.assert_close(back, changed)
    whitened = layer(expected)[0]
    torch.testing.assert_close(whitened, t)


def test_pairs_are_neighbours():
    t = torch.arange(24.0).view(1, 1, 4, 6)
    left, right = PairNeighbors("columns")(t)[0].chunk(2, dim=1)
    assert torch.equal(right, left + 1)
    upper, lower = PairNeighbors("rows")(t)[0].chunk(2, dim=1)
    assert torch.equal(lower, upper + 6)


def test_channel_shuffle_brings_what_is_alike_in_all_groups_together():
    t = torch.arange(6.0).view(1, 6, 1, 1)
    assert ChannelShuffle(2)(t)[0].flatten().tolist() == [0, 3, 1, 4, 2, 5]
    assert torch.equal(ChannelShuffle(3)(ChannelShuffle(2)(t)[0])[0], t)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: Unflatten(), "size must be positive, got 0"),
        (lambda: Unflatten(2, 3)(torch.zeros(1, 5)), r"shape \(B, 6, ...\), got \(1, 5\)"),
        (lambda: PixelShuffle(0), "factor must be positive"),
        (lambda: PixelShuffle(2)(torch.zeros(1, 3, 2, 2)), r"shape \(B, C 4, H, W\), got \(1, 3, 2, 2\)"),
        (lambda: ChannelShuffle(0), "groups must be positive"),
        (lambda: ChannelShuffle(2)(torch.zeros(1, 3, 2, 2)), r"shape \(B, 2 K, H, W\), got \(1, 3, 2, 2\)"),
        (lambda: PairNeighbors("diagonals"), "'columns' or 'rows', got 'diagonals'"),
        (lambda: PairNeighbors("rows")(torch.zeros(1, 3, 3, 2)), "even number of rows"),
        (lambda: Coupling(nn.Identity(), 3, 3), "0 < given < features = 3, got given = 3"),
        (lambda: Coupling(nn.Identity(), 3, 1, bound=0.0), "bound must be positive"),
        (lambda: Coupling(nn.Identity(), 3, 1)(torch.zeros(2, 4)), r"shape \(B, 3, ...\)"),
    ],
)
def test_bad_arguments(act, message):
    with pytest.raises(ValueError, match=message):
        act()
