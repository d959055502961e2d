import math

import pytest
import torch

from led_fast.flows import DiagonalNormal
from led_fast.training.blur import BlurredData, typical_spacing


def blurred(points, widths, share):
    proposal = BlurredData(torch.tensor(widths), DiagonalNormal(torch.zeros(2), 1.5), share)
    proposal.points = points
    return proposal


def test_density_is_that_of_torch_distributions():
    torch.manual_seed(0)
    points, widths, share = torch.randn(5, 2), [0.01, 0.3], 0.2
    centers = torch.cat([points.repeat(2, 1), torch.zeros(1, 2)]).double()
    scales = torch.tensor([[w] for w in widths for _ in points] + [[1.5]]).double()
    weights = torch.tensor([(1 - share) / 10] * 10 + [share]).double()
    oracle = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(weights),
        torch.distributions.Independent(torch.distributions.Normal(centers, scales), 1),
    )
    proposal = blurred(points, widths, share)
    y, log_q = proposal.rsample(200)
    torch.testing.assert_close(log_q.double(), oracle.log_prob(y.double()), atol=1e-3, rtol=1e-4)
    only_broad = blurred(points, widths, 1.0)
    torch.testing.assert_close(only_broad.log_prob(y), DiagonalNormal(torch.zeros(2), 1.5).log_prob(y))
    far = torch.full((1, 2), 50.0)
    torch.testing.assert_close(proposal.log_prob(far).double(), oracle.log_prob(far.double()))


def test_samples_follow_the_density():
    # E_q[h / q] = 1 for any normalised h inside the support: here a normal.
    torch.manual_seed(1)
    y, log_q = blurred(torch.randn(20, 2), [0.1, 1.0], 0.3).rsample(50_000)
    weights = (DiagonalNormal(torch.zeros(2), 1.0).log_prob(y) - log_q).exp()
    assert weights.mean().item() == pytest.approx(1, abs=4 * weights.std().item() / math.sqrt(len(y)))


def test_typical_spacing():
    points = torch.tensor([[0.0, 0.0], [0.0, 1.0], [5.0, 0.0], [5.0, 2.0], [9.0, 9.0]])
    assert typical_spacing(points) == 2.0
