"""Layers of image flows: what each is said to do. (Both directions of all: test_flows_layers.py.)"""

import pytest
import torch
from layers import Network
from torch import nn

from led_fast.flows import (
    ChannelShuffle,
    Coupling,
    PairNeighbors,
    PixelShuffle,
    Unflatten,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("given_first", [True, False])
def test_coupling_is_what_it_says(given_first):
    layer = Coupling(Network(2, 4), 4, 2, given_first, bound=0.5).double()
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
        (lambda: Unflatten(2, 3)(torch.zeros(1, 5)), r"shape \(B, 6\), got \(1, 5\)"),
        (lambda: PixelShuffle(0), "factor must be positive"),
        (lambda: PixelShuffle(2)(torch.zeros(1, 3, 2, 2)), r"shape \(B, C 4, H, W\), got \(1, 3, 2, 2\)"),
        (lambda: ChannelShuffle(0), "groups must be positive"),
        (lambda: ChannelShuffle(2)(torch.zeros(1, 3, 2, 2)), r"shape \(B, 2 K, H, W\), got \(1, 3, 2, 2\)"),
        (lambda: PairNeighbors("diagonals"), "'columns' or 'rows', got 'diagonals'"),
        (lambda: PairNeighbors("rows")(torch.zeros(1, 3, 3, 2)), "even number of rows"),
        (lambda: Coupling(nn.Identity(), 3, 3), "given must lie between 0 and features = 3, got 3"),
        (lambda: Coupling(nn.Identity(), 3, 1, bound=0.0), "bound must be positive"),
        (lambda: Coupling(nn.Identity(), 3, 1)(torch.zeros(2, 4)), r"shape \(B, 3, ...\)"),
    ],
)
def test_bad_arguments(act, message):
    with pytest.raises(ValueError, match=message):
        act()


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_pixel_shuffle_is_torchs(factor):
    t = torch.randn(2, 2 * factor**2, 3, 5, requires_grad=True)
    assert torch.equal(PixelShuffle(factor)(t)[0], nn.functional.pixel_shuffle(t, factor))
    empty = torch.zeros(0, factor**2, 2, 2, requires_grad=True)
    PixelShuffle(factor)(empty)[0].sum().backward()
    assert empty.grad.shape == empty.shape
