"""Log α from weights below a cap: how often its interval holds the truth, and when it is not to be believed."""

import math

import pytest
import torch
from torch.nn.functional import softplus

from led_fast.density import (
    Witness,
    betting_interval,
    estimate_bounded_log_normalizer,
    judge,
    summarize_bounded_log_weights,
)
from led_fast.density.bounded import _bets
from led_fast.flows import DiagonalNormal

CAP = 5.0
REPEATS = 100
BLIND = "nothing"


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def capped(v):
    return CAP - softplus(CAP - v)


class Tilt:
    """A soft-capped net of slope `slope`; and `rare` of all draws lie just below the cap. α by the trapezoidal rule."""

    def __init__(self, slope, rare=0.0):
        self.slope, self.rare, self.high = slope, rare, CAP - 0.1
        z = torch.linspace(-12, 12, 100_001, dtype=torch.float64)
        density = torch.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
        mean = torch.trapezoid(density * capped(slope * z).exp(), z).item()
        self.log_alpha = math.log((1 - rare) * mean + rare * math.exp(self.high))

    def log_weights(self, shape):
        found = capped(self.slope * torch.randn(shape, dtype=torch.float64))
        found[torch.rand(shape) < self.rare] = self.high
        return found


def repeat(tilt, samples):
    """The estimates of many repeats; and how often the interval, and the bound, hold log α."""
    found = [
        summarize_bounded_log_weights(tilt.log_weights((20, samples // 20)), CAP) for _ in range(REPEATS)
    ]
    interval, bound = (
        sum(low <= tilt.log_alpha <= high for low, high in ends) / REPEATS
        for ends in ([e.ci95 for e in found], [e.bound95 for e in found])
    )
    return found, interval, bound


@pytest.mark.parametrize(
    "slope, rare, ess, samples",
    [
        (0.8, 0.0, 0.54, 20_000),
        (2.5, 0.0, 0.15, 20_000),
        pytest.param(0.8, 0.0, 0.54, 100_000, marks=pytest.mark.slow),
        pytest.param(1.2, 0.0, 0.29, 100_000, marks=pytest.mark.slow),
        pytest.param(2.5, 0.0, 0.15, 100_000, marks=pytest.mark.slow),
        pytest.param(0.5, 2e-4, 0.26, 100_000, marks=pytest.mark.slow),
    ],
)
def test_the_interval_covers_and_the_bound_over_covers(slope, rare, ess, samples):
    tilt = Tilt(slope, rare)
    found, interval, bound = repeat(tilt, samples)
    assert sum(e.ess_fraction for e in found) / REPEATS == pytest.approx(ess, abs=0.015)
    print(f"interval covers {interval}, bound {bound}")
    assert 0.90 <= interval <= 0.99 and bound >= 0.95
    assert all(e.reliable for e in found)
    for e in found[:5]:
        (low, high), (least, most) = e.ci95, e.bound95
        assert least < low < e.value < high < most < least + 0.2
    judged = judge("weights", {"weights": Witness(found[0], BLIND, "bounded")})
    assert judged.reliable and judged.value == found[0].value and judged.interval == found[0].ci95


def test_weights_that_were_hardly_seen_are_not_believed():
    """A ninth of α is in a thousandth of the draws, of which one is expected: the spread misses it often."""
    tilt = Tilt(0.1, rare=1e-3)
    found, interval, bound = repeat(tilt, 1000)
    assert interval < 0.8 and bound >= 0.95
    assert not any(e.reliable for e in found)
    assert "weights up to e^5 may hide" in found[0].reason


def test_a_bet_knows_nothing_of_what_it_is_about():
    x, needed = torch.rand(40, dtype=torch.float64), 3.0
    for i in range(40):
        other = torch.cat([x[:i], x[i:] ** 3])
        assert torch.equal(_bets(x, needed)[: i + 1], _bets(other, needed)[: i + 1])
        assert i == 39 or not torch.equal(_bets(x, needed)[i + 1], _bets(other, needed)[i + 1])


def test_the_bound_of_any_level_holds_for_few_and_odd_variables():
    for p, n in ((0.5, 1), (0.5, 3), (0.02, 30), (0.98, 30)):
        for level in (0.5, 0.9):
            hits = 0
            for _ in range(300):
                low, high = betting_interval((torch.rand(n) < p).double(), level)
                assert 0 <= low <= high <= 1
                hits += low <= p <= high
            assert hits >= 300 * level - 3 * math.sqrt(300 * level * (1 - level))
    for value in (0.0, 1.0):
        low, high = betting_interval(torch.full((1000,), value, dtype=torch.float64))
        assert low <= value <= high and high - low < 0.02


def empirical_bernstein(x):
    """Maurer and Pontil 2009, Theorem 4, two-sided."""
    n, log = len(x), math.log(4 / 0.05)
    width = math.sqrt(2 * x.var().item() * log / n) + 7 * log / (3 * (n - 1))
    return x.mean().item() - width, x.mean().item() + width


@pytest.mark.parametrize("slope", [0.8, 2.5])
def test_betting_is_tighter_than_bernstein(slope):
    x = (Tilt(slope).log_weights(100_000) - CAP).exp()
    (low, high), (least, most) = betting_interval(x), empirical_bernstein(x)
    assert least < low < high < most and high - low < 0.9 * (most - least)


class Net:
    """A net that has learned the points of a pool by heart: there it is low by two nats."""

    def __init__(self, base, pool):
        self.base, self.pool = base, pool.double()

    def tilt(self, y):
        distance = torch.cdist(y.double(), self.pool).min(1).values
        return -2 * torch.exp(-0.5 * (distance / 1e-4) ** 2)

    def __call__(self, y):
        return self.tilt(y) + self.base.log_prob(y)


class Pool:
    """A proposal that draws the same points again."""

    def __init__(self, base, pool):
        self.base, self.pool = base, pool

    def rsample_and_log_prob(self, n):
        y = self.pool[torch.randint(len(self.pool), (n,))]
        return y, self.base.log_prob(y)


def test_a_memorised_pool_is_not_believed():
    base = DiagonalNormal(torch.zeros(3))
    pool = base.rsample(300)
    net = Net(base, pool)
    fresh = estimate_bounded_log_normalizer(net, base, cap=0.0, samples=4000)
    assert fresh.value == pytest.approx(0, abs=1e-2) and fresh.reliable
    broken = estimate_bounded_log_normalizer(net, Pool(base, pool), cap=0.0, samples=4000)
    assert broken.value == pytest.approx(-2, abs=1e-6) and not broken.reliable
    assert broken.reason == "92% of the draws are repetitions: a pool, not fresh draws"
    assert not judge("pool", {"pool": Witness(broken, BLIND, "bounded")}).reliable
    # The value of a pool's own weights, of which nobody can tell, is off by fresh draws.
    own = summarize_bounded_log_weights(net.tilt(pool.repeat(20, 1)).view(20, -1), cap=0.0)
    assert own.reliable and own.value == pytest.approx(-2, abs=1e-6)
    verdict = judge(own.value, {"fresh": Witness(fresh, BLIND, "bounded")}, tolerance=0.1)
    assert not verdict.reliable and verdict.reason == "fresh differs by +2.000 nats"


def test_weights_above_the_cap_and_broken_ones_are_not_believed():
    above = torch.zeros(20, 500)
    above[3, 3] = 0.02
    found = summarize_bounded_log_weights(above, cap=0.0)
    assert not found.reliable and found.reason == "1 of 10000 log-weights are above the cap 0"
    assert found.bound95 == (-math.inf, math.inf)
    above[3, 3] = 0.009  # of rounding
    assert summarize_bounded_log_weights(above, cap=0.0).reliable
    for broken in (math.nan, math.inf):
        above[3, 3] = broken
        found = summarize_bounded_log_weights(above, cap=0.0)
        assert not found.reliable and math.isnan(found.value) and "NaN or +inf" in found.reason
    found = summarize_bounded_log_weights(torch.full((20, 500), -math.inf), cap=0.0)
    assert not found.reliable and found.reason == "every weight is zero"


def test_an_inverse_that_is_off_shows_in_the_weights():
    """The critic's log q of a draw is not what the generator says: its density is another."""
    base = DiagonalNormal(torch.zeros(2))

    def critic(y):
        return base.log_prob(1.5 * y)

    found = estimate_bounded_log_normalizer(lambda y: critic(y) + 2 * y[:, 0] ** 2, base, cap=1.0)
    assert not found.reliable and "above the cap 1" in found.reason


def test_more_batches_than_samples_are_refused():
    with pytest.raises(ValueError, match="samples must be at least batches = 20, got 10"):
        estimate_bounded_log_normalizer(lambda y: y.sum(1), DiagonalNormal(torch.zeros(2)), 1.0, samples=10)
