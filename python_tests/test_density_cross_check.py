"""Estimates beside each other: what one of them cannot see, another must."""

import math
from dataclasses import replace

import pytest
import torch

from led_fast.density import (
    AnnealedBracket,
    QuadratureEstimate,
    annealed_log_normalizer,
    cross_check,
    estimate_log_normalizer,
)
from led_fast.flows import DiagonalNormal, OneWayFlow

LOG_ALPHA = 2.5


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class FarModes:
    """Two unit normals 12 standard deviations apart, in D dimensions, with given weights."""

    def __init__(self, features, weights=(0.5, 0.5)):
        center = torch.zeros(features)
        center[0] = 6.0
        self.modes = [DiagonalNormal(sign * center) for sign in (-1, 1)]
        self.log_weights = torch.tensor(weights).log()

    def __call__(self, x):
        parts = torch.stack([mode.log_prob(x) for mode in self.modes])
        return LOG_ALPHA + torch.logsumexp(parts + self.log_weights[:, None], 0)

    def samples(self, n):
        return torch.cat([mode.rsample(n // 2) for mode in self.modes])[torch.randperm(n // 2 * 2)]


def estimates(critic, generator, features, reverse_from):
    torch.manual_seed(0)
    base = DiagonalNormal(torch.zeros(features), torch.tensor([5.0] + [1.2] * (features - 1)))
    return (
        estimate_log_normalizer(critic, generator),
        estimate_log_normalizer(critic, base),
        annealed_log_normalizer(critic, OneWayFlow(base, []), reverse_from, temperatures=100, chains=1000),
    )


@pytest.mark.parametrize("features", [2, 8])
def test_a_proposal_that_drops_a_mode_is_flagged(features):
    critic = FarModes(features)
    one_mode = critic.modes[0]
    generator, broad, annealed = estimates(critic, one_mode, features, one_mode.rsample(1000))
    assert generator.reliable and generator.ci95[1] < LOG_ALPHA - 0.6  # half of the mass, and nothing seen
    check = cross_check(generator, broad, annealed)
    assert not check.reliable and "differs by +0." in check.reason
    assert "annealing differs" in check.reason and "the broad proposal differs" in check.reason
    only_broad, only_annealed = (
        cross_check(generator, broad),
        cross_check(generator, replace(broad, reliable=False), annealed),
    )
    assert not only_broad.reliable and not only_annealed.reliable


@pytest.mark.parametrize("features", [2, 8])
def test_a_proposal_that_covers_both_is_confirmed(features):
    critic = FarModes(features, (0.3, 0.7))
    both = FarModes(features)

    class Both:
        def rsample_and_log_prob(self, n):
            y = both.samples(n)
            return y, both(y) - LOG_ALPHA

    exact = torch.cat([critic.modes[0].rsample(300), critic.modes[1].rsample(700)])[torch.randperm(1000)]
    generator, broad, annealed = estimates(critic, Both(), features, exact)
    assert generator.value == pytest.approx(LOG_ALPHA, abs=0.03)
    assert cross_check(generator, broad, annealed) == (True, "")


def test_without_a_reliable_second_estimate_nothing_is_reliable():
    good = estimate_log_normalizer(FarModes(2), DiagonalNormal(torch.zeros(2), 5.0))
    poor = replace(good, reliable=False, ci95=(-math.inf, 9.0))
    assert cross_check(good, poor) == (False, "no second estimate is reliable")
    assert cross_check(good, poor, AnnealedBracket(good, None)).reliable
    # Its mean weight is α: 5 nats above what is believed is no accident, however it spreads.
    above = cross_check(good, replace(poor, value=good.value + 5), AnnealedBracket(good, None))
    assert "which is unbiased, exceeds it by 5.0 nats" in above.reason
    below = cross_check(good, replace(poor, value=good.value - 5), AnnealedBracket(good, None))
    assert below.reliable


def test_an_upper_bound_below_the_estimate_contradicts_it():
    good = estimate_log_normalizer(FarModes(2), DiagonalNormal(torch.zeros(2), 5.0))
    bound = replace(good, value=good.value - 1, ci95=(good.ci95[0] - 1, good.ci95[1] - 1))
    check = cross_check(good, good, AnnealedBracket(good, bound))
    assert not check.reliable and "reverse annealing differs by -1.000 nats" in check.reason


def test_quadrature_is_the_judge():
    good = estimate_log_normalizer(FarModes(2), DiagonalNormal(torch.zeros(2), 5.0))
    poor = replace(good, value=good.value - 9, reliable=False, reason="effective sample size 2 < 400")
    exact = QuadratureEstimate(LOG_ALPHA, 1e-4, 1e-6, 1000)
    assert cross_check(good, poor, AnnealedBracket(poor, poor), exact) == (True, "")
    off = exact._replace(value=good.value - 1)
    assert "differs from quadrature by 1.000" in cross_check(good, good, None, off).reason
    assert "differs" in cross_check(good, good, None, exact._replace(value=math.nan)).reason
    for error in (0.3, math.nan):
        assert (
            "quadrature has an error of" in cross_check(good, good, None, exact._replace(error=error)).reason
        )
    assert "10.0 % of the mass" in cross_check(good, good, None, exact._replace(edge_share=0.1)).reason
    assert cross_check(poor, good, None, exact).reason.startswith(
        "effective sample size 2 < 400; differs from"
    )
