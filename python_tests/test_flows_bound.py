"""The bound of a sliced flow's density: unbiased in its exponential, below on average, exact where r is."""

import math

import pytest
import torch
from flow_oracles import randomize

from led_fast.flows import (
    GaussianConditional,
    Inflate,
    Linear,
    NotInvertibleError,
    OneWayFlow,
    PairNeighbors,
    Slice,
    SoftReLU,
    StandardNormal,
    Unflatten,
)
from led_fast.models import image_generator, points_generator

DRAWS = 40_000


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def sliced(conditional):
    layers = [Linear(3), SoftReLU(features=3, learned=True), Linear(3)]
    flow = OneWayFlow(StandardNormal(2), [Inflate(1), *layers, Slice(3, 2, conditional), Linear(2)])
    return randomize(flow, 0.1).double()


def density(flow, y):
    """q(y), by quadrature over what the slice drops."""
    whole = OneWayFlow(flow.base, list(flow.layers)[:-2])
    kept, ladj = flow.layers[-1].inverse(y)
    axis = torch.linspace(-15, 15, 4001, dtype=torch.float64)
    points = torch.cat([kept.expand(len(axis), 2), axis[:, None]], dim=1)
    return torch.trapezoid(whole.log_prob(points).exp(), axis).item() * ladj.exp().item()


@torch.no_grad()
@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_its_exponential_is_unbiased_and_it_lies_below(sigma):
    flow = sliced(GaussianConditional(sigma))
    for y in torch.randn(3, 1, 2, dtype=torch.float64):
        bounds = flow.log_prob_bound(y.expand(DRAWS, 2))
        exact = density(flow, y)
        error = bounds.exp().std().item() / math.sqrt(DRAWS)
        assert bounds.exp().mean().item() == pytest.approx(exact, abs=5 * error) and error < 0.05 * exact
        assert bounds.mean().item() < math.log(exact) - 0.01


def test_it_is_the_density_where_r_is_the_true_conditional():
    flow = OneWayFlow(
        StandardNormal(2), [Inflate(1), Linear(3), Slice(3, 2, GaussianConditional(0.7))]
    ).double()
    with torch.no_grad():  # t2 = t1's first + 0.7 noise
        flow.layers[1].weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 0, 0.7]]))
        flow.layers[1].bias.zero_()
    y, log_q = flow.rsample_and_log_prob(100)
    torch.testing.assert_close(flow.log_prob_bound(y), StandardNormal(2).log_prob(y))
    torch.testing.assert_close(log_q, StandardNormal(2).log_prob(y))


def test_without_a_slice_it_is_the_density():
    flow = OneWayFlow(StandardNormal(2), [Linear(2), SoftReLU(), Linear(2)])
    y = flow.sample(20)
    assert flow.has_bound and torch.equal(flow.log_prob_bound(y), flow.log_prob(y))


def test_slices_of_channels():
    layers = [Inflate(12), Unflatten(1, 4, 4), PairNeighbors("rows"), Slice(2, 1, GaussianConditional())]
    flow = OneWayFlow(StandardNormal(4), layers)
    torch.manual_seed(3)
    bound = flow.log_prob_bound(torch.zeros(50, 1, 2, 4))
    torch.manual_seed(3)
    dropped = torch.randn(50, 1, 2, 4).flatten(1)
    log_normal = -0.5 * math.log(2 * math.pi)
    joint = 16 * log_normal - 0.5 * dropped.square().sum(1)
    torch.testing.assert_close(bound, joint - (8 * log_normal - 0.5 * dropped.square().sum(1)))


def test_its_gradient_trains_by_likelihood():
    """Points of a normal distribution of other moments; the generator, sliced, learns them by the bound alone."""
    generator = points_generator("paper")
    optimizer = torch.optim.Adam(generator.parameters(), 3e-3)
    for _ in range(150):
        x = 0.5 * torch.randn(256, 2) + torch.tensor([1.0, -1.0])
        loss = -generator.log_prob_bound(x).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    entropy = math.log(2 * math.pi * math.e * 0.25)
    assert (
        -0.05
        < -generator.log_prob_bound(0.5 * torch.randn(4000, 2) + torch.tensor([1.0, -1.0])).mean() - entropy
        < 0.1
    )


def test_an_r_that_cannot_be_drawn_from():
    flow = OneWayFlow(StandardNormal(3), [Slice(3, 2)])
    assert not flow.has_bound
    with pytest.raises(NotInvertibleError, match="augment: LearnedConditional has no rsample_and_log_prob"):
        flow.log_prob_bound(torch.zeros(1, 2))


def test_the_papers_images_have_one():
    generator = image_generator("paper_mnist32")
    assert generator.has_bound and not generator.invertible
    with torch.no_grad():
        y, log_q = generator.rsample_and_log_prob(20)
        assert (generator.log_prob_bound(y) - log_q).abs().max() < 0.05  # at the start Eq. 8 is exact
