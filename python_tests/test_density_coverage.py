"""How often the 95 % interval holds the true log α, on critics whose α is known, by the tail of the weights.

A normal proposal of variance v under a normal critic of variance 1 gives weights of tail index k = 1 - v: bounded
from v = 1 on, of infinite variance below v = 1/2, and beyond what any diagnostic of a sample can save near 0.
"""

import math

import pytest
import torch

from led_fast.density import summarize_log_weights

LOG_ALPHA = 2.5
REPEATS = 200


def normal(y, mean, variance):
    return -0.5 * (y - mean) ** 2 / variance - 0.5 * math.log(2 * math.pi * variance)


def gaussian_critic(y):
    return LOG_ALPHA + normal(y, 0.3, 1.0)


def mixture_critic(y):
    """Weights 1/4 and 3/4, means -2 and 2, variances 1/4 and 1."""
    return LOG_ALPHA + torch.logaddexp(normal(y, -2, 0.25) - math.log(4), normal(y, 2, 1.0) + math.log(0.75))


def normal_proposal(variance, mean=0.0):
    def draw(shape):
        y = mean + math.sqrt(variance) * torch.randn(shape, dtype=torch.float64)
        return y, normal(y, mean, variance)

    return draw


def student_proposal(scale):
    """Three degrees of freedom: heavier tails than any critic here."""

    def draw(shape):
        student = torch.distributions.StudentT(torch.tensor(3.0, dtype=torch.float64), 0.0, scale)
        y = student.sample(shape)
        return y, student.log_prob(y)

    return draw


def repeat(critic, draw, per_batch):
    """Shares of repeats: interval covers, |z| < 3, reliable, reliable but not covering."""
    torch.manual_seed(0)
    covers, near, reliable, deceived = 0, 0, 0, 0
    for _ in range(REPEATS):
        y, log_q = draw((20, per_batch))
        estimate = summarize_log_weights(critic(y) - log_q)
        low, high = estimate.ci95
        standard_error = (
            1 - math.exp(low - estimate.value)
        ) / 2.093  # Student's t with 19 degrees of freedom
        hit = low <= LOG_ALPHA <= high
        covers += hit
        near += abs(math.exp(LOG_ALPHA - estimate.value) - 1) < 3 * standard_error
        reliable += estimate.reliable
        deceived += estimate.reliable and not hit
    return [count / REPEATS for count in (covers, near, reliable, deceived)]


SOUND = {
    "gaussian, wide": (gaussian_critic, normal_proposal(4.0), 500),
    "gaussian, a little wide": (gaussian_critic, normal_proposal(1.5), 500),
    "gaussian, shifted": (gaussian_critic, normal_proposal(1.5, 2.0), 500),
    "gaussian, heavy-tailed": (gaussian_critic, student_proposal(1.0), 500),
    "gaussian, k = .2": (gaussian_critic, normal_proposal(0.8), 500),
    "gaussian, k = .35": (gaussian_critic, normal_proposal(0.65), 500),
    "gaussian, k = .45": (gaussian_critic, normal_proposal(0.55), 1000),
    "mixture, wide": (mixture_critic, normal_proposal(9.0), 500),
    "mixture, a little wide": (mixture_critic, normal_proposal(5.0, 1.0), 500),
    "mixture, heavy-tailed": (mixture_critic, student_proposal(2.0), 500),
}


@pytest.mark.parametrize("name", SOUND)
def test_coverage_where_the_tail_is_light(name):
    covers, near, reliable, deceived = repeat(*SOUND[name])
    print(f"{name}: covers {covers:.3f}, |z| < 3 {near:.3f}, reliable {reliable:.3f}")
    assert 0.90 <= covers <= 0.99
    assert near >= 0.95
    assert reliable >= 0.9 and deceived <= 0.1


# Proposals whose spread misleads, and the least share of repeats in which that is seen.
UNSOUND = {
    "gaussian, k = .7": (gaussian_critic, normal_proposal(0.3), 1000, 0.75),
    "gaussian, k = .8": (gaussian_critic, normal_proposal(0.2), 1000, 0.85),
    "gaussian, k = .9": (gaussian_critic, normal_proposal(0.1), 1000, 0.95),
    "gaussian, far off": (gaussian_critic, normal_proposal(1.0, 4.3), 1000, 1.0),
    "mixture, one mode drawn": (mixture_critic, normal_proposal(1.0, 2.0), 1000, 1.0),
}


@pytest.mark.parametrize("name", UNSOUND)
def test_heavy_tails_undercover_and_are_flagged(name):
    *setting, flagged = UNSOUND[name]
    covers, near, reliable, deceived = repeat(*setting)
    print(
        f"{name}: covers {covers:.3f}, |z| < 3 {near:.3f}, reliable {reliable:.3f}, of these wrong {deceived:.3f}"
    )
    assert near < 0.95  # the value is off by more than its spread admits
    assert reliable <= 1 - flagged


def test_the_interval_counts_what_a_heavy_tail_holds_unseen():
    """One percent of the mass with tail index 2/3: the spread of the weights alone covers in 82 % of repeats."""

    def critic(y):
        return LOG_ALPHA + torch.logaddexp(
            normal(y, 0, 1.0) + math.log(0.99), normal(y, 0, 3.0) + math.log(0.01)
        )

    covers, *_ = repeat(critic, normal_proposal(1.0), 1000)
    assert 0.90 <= covers <= 0.99
