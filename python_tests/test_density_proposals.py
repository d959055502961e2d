"""Proposals that cover the space: the integral stays unbiased, whatever shares it out."""

import math

import pytest
import torch
from flow_oracles import gaussian_mixture, randomize

from led_fast.density import CoveringProposal, KernelProposal, quadrature_log_normalizer
from led_fast.flows import DiagonalNormal, Linear, OneWayFlow, Staircase, StandardNormal
from led_fast.models import points_balance

LOG_ALPHA = 1.3


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def critic(y):
    return LOG_ALPHA + gaussian_mixture(torch.tensor([[0.0, 0.0], [2.0, 1.0]]), 0.5)(y)


def wrong_balance(y):
    """Trusts the generator far out, where it hardly samples, and the broad normal in the middle."""
    return 3 * torch.tanh(y.square().sum(1) - 4)


def proposal(epsilon=0.5, balance=None):
    generator = OneWayFlow(StandardNormal(2), [Linear(2), Staircase(2), Linear(2)])
    with torch.no_grad():
        generator.layers[-1].weight.mul_(1.5)
    return CoveringProposal(generator, DiagonalNormal(torch.zeros(2), 2.0), epsilon, balance)


class Wrong(torch.nn.Module):
    def forward(self, y):
        return wrong_balance(y)


@pytest.mark.parametrize("epsilon", [0.1, 0.5])
@pytest.mark.parametrize("balance", [lambda: None, lambda: randomize(points_balance(), 0.2), Wrong])
def test_unbiased_for_any_balance(epsilon, balance):
    mixture = proposal(epsilon, balance())
    with torch.no_grad():
        y, log_q = mixture.rsample_and_log_prob(400_000)
        weights = (critic(y) - log_q).double().exp() / math.exp(LOG_ALPHA)
    error = float(weights.std()) / math.sqrt(len(weights))
    assert error < 0.02
    assert abs(float(weights.mean()) - 1) < 4.5 * error


def test_a_component_may_miss_all_the_mass_where_the_balance_knows_it():
    # The generator sits far from the integrand; a balance that gives it no share there leaves the broad
    # weights whole.
    mixture = proposal(0.5, Wrong())
    mixture.generator = DiagonalNormal(torch.full((2,), 40.0), 0.1)
    mixture.balance.forward = lambda y: y[:, 0] - 20
    y, log_q = mixture.rsample_and_log_prob(100_000)
    assert (critic(y) - log_q).double().exp().mean().log().item() == pytest.approx(LOG_ALPHA, abs=0.03)


def test_share_of_broad_draws_is_epsilon_even_for_single_draws():
    mixture = proposal(0.2)
    mixture.generator = DiagonalNormal(torch.full((2,), 1000.0), 1.0)
    for n in (1, 3):
        broad = sum(int((mixture.rsample_and_log_prob(n)[0][:, 0] < 500).sum()) for _ in range(3000))
        share = broad / (3000 * n)
        assert share == pytest.approx(0.2, abs=4.5 * math.sqrt(0.16 / (3000 * n)))


def test_kernel_proposal_knows_its_density():
    points = 2 * torch.randn(30, 2)
    kernels = KernelProposal(points, torch.tensor([0.05, 0.4]), DiagonalNormal(torch.zeros(2), 2.0), 0.25)
    assert quadrature_log_normalizer(kernels.log_prob, (-14, -14), (14, 14)).value == pytest.approx(
        0, abs=2e-4
    )
    y, log_q = kernels.rsample_and_log_prob(200_000)
    torch.testing.assert_close(log_q, kernels.log_prob(y))
    weights = (critic(y) - log_q).double().exp()
    error = float(weights.std() / weights.mean()) / math.sqrt(len(weights))
    assert abs(float(weights.mean().log()) - LOG_ALPHA) < 4.5 * error


def test_broad_component_can_change_between_draws():
    mixture = proposal(0.5)
    mixture.broad = KernelProposal(torch.full((4, 2), 50.0), torch.ones(1), mixture.broad, 1e-9)
    y, _ = mixture.rsample_and_log_prob(400)
    assert int((y[:, 0] > 40).sum()) == 200


def test_balance_learns_the_balance_heuristic():
    mixture = proposal(0.3, points_balance())
    mixture.generator = DiagonalNormal(torch.tensor([1.0, 0.0]), 0.5)
    optimizer = torch.optim.Adam(mixture.balance.parameters(), 3e-3)
    for _ in range(300):
        loss = mixture.propose(512).balance_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    y, _ = mixture.rsample_and_log_prob(4000)
    truth = mixture.generator.log_prob(y) - mixture.broad.log_prob(y) + math.log(0.7 / 0.3)
    with torch.no_grad():
        assert (mixture.balance(y).sigmoid() - truth.sigmoid()).abs().mean() < 0.05


def test_only_the_balance_receives_gradients():
    mixture = proposal(0.5, points_balance())
    draw = mixture.propose(64)
    assert not draw.y.requires_grad and not draw.log_q.requires_grad
    draw.balance_loss.backward()
    assert all(p.grad is None for p in mixture.generator.parameters())
    assert all(p.grad is not None for p in mixture.balance.parameters())


@pytest.mark.parametrize("epsilon", [0.0, 1.0, -0.1])
def test_bad_shares(epsilon):
    with pytest.raises(ValueError, match=r"epsilon must lie in \(0, 1\)"):
        proposal(epsilon)
    with pytest.raises(ValueError, match=r"broad_share must lie in \(0, 1\)"):
        KernelProposal(torch.zeros(1, 2), torch.ones(1), DiagonalNormal(torch.zeros(2)), epsilon)
