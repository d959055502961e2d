"""Base distributions against torch.distributions."""

import math

import pytest
import torch
from torch import distributions as D

from led_fast.flows import DiagonalNormal, MixtureBase, StandardNormal
from led_fast.flows.base import rsample_log_prob_and_score


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def mixture():
    base = MixtureBase(2, 3, spread=2.0).double()
    with torch.no_grad():
        base.log_scales.normal_(0.0, 0.4)
        base.logits.normal_()
    truth = D.MixtureSameFamily(
        D.Categorical(logits=base.logits), D.Independent(D.Normal(base.means, base.log_scales.exp()), 1)
    )
    return base, truth


def normal():
    mean, scale = torch.randn(2, dtype=torch.float64), torch.rand(2, dtype=torch.float64) + 0.5
    return DiagonalNormal(mean, scale), D.Independent(D.Normal(mean, scale), 1)


def standard():
    zero = torch.zeros(2, dtype=torch.float64)
    return StandardNormal(2).double(), D.Independent(D.Normal(zero, zero + 1), 1)


@pytest.mark.parametrize("build", [mixture, normal, standard])
def test_density_and_score(build):
    base, truth = build()
    z = 2 * torch.randn(50, 2, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(base.log_prob(z), truth.log_prob(z))
    (expected,) = torch.autograd.grad(truth.log_prob(z).sum(), z)
    torch.testing.assert_close(base.score(z), expected)
    assert not base.score(z).requires_grad


@pytest.mark.parametrize("build", [mixture, normal, standard])
def test_sample_density_and_score_in_one_call(build):
    base, truth = build()
    z, log_prob, score = rsample_log_prob_and_score(base, 20)
    torch.testing.assert_close(log_prob, truth.log_prob(z))
    torch.testing.assert_close(score, base.score(z))
    assert not score.requires_grad and log_prob.requires_grad == (build is mixture)


@pytest.mark.parametrize("build", [mixture, normal, standard])
def test_samples_follow_the_density(build):
    base, truth = build()
    z, log_prob = base.rsample_and_log_prob(40_000)
    torch.testing.assert_close(log_prob, truth.log_prob(z))
    standardised = (z.mean(0) - truth.mean) / (truth.variance / len(z)).sqrt()
    assert standardised.abs().max() < 4.5
    torch.testing.assert_close(z.var(0), truth.variance, rtol=0.05, atol=0)


def test_mixture_samples_are_differentiable_in_means_and_scales():
    base, _ = mixture()
    base.rsample(100).sum().backward()
    assert base.means.grad.sum().item() == pytest.approx(200.0)
    assert base.log_scales.grad.abs().sum() > 0 and base.logits.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mixture_of_needles_keeps_its_digits(dtype):
    """Multiplied out, the squares of narrow components far from 0 nearly cancel."""
    base = MixtureBase(5, components=3, spread=3.0, scale=1e-3).to(dtype)
    z = base.rsample(200).detach()
    means, scales = base.means.double(), base.log_scales.double().exp()
    parts = torch.distributions.Normal(means, scales).log_prob(z.double()[:, None]).sum(2)
    wanted = (parts + base.logits.double().log_softmax(0)).logsumexp(1)
    torch.testing.assert_close(base.log_prob(z).double(), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mixture_has_no_density_at_infinity(dtype):
    base = MixtureBase(2, components=4).to(dtype)
    z = torch.tensor([[math.inf, 0.0], [-math.inf, math.inf]], dtype=dtype)
    assert base.log_prob(z).tolist() == [-math.inf, -math.inf]
    assert base.log_prob(torch.full((1, 2), math.nan, dtype=dtype)).isnan().all()


def test_image_shaped_base():
    z, log_prob = StandardNormal(3, 4, 5).rsample_and_log_prob(6)
    assert z.shape == (6, 3, 4, 5) and log_prob.shape == (6,)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: StandardNormal(), "positive sizes"),
        (lambda: StandardNormal(2, 0), "positive sizes"),
        (lambda: DiagonalNormal(torch.zeros(2), 0.0), "scale must be positive"),
        (lambda: MixtureBase(2, 0), "components must be positive"),
    ],
)
def test_bad_arguments(build, message):
    with pytest.raises(ValueError, match=message):
        build()
