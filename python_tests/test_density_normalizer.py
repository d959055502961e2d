"""Estimates of log α and the diagnostics that judge them."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
from scipy import stats

from led_fast.density import (
    QuadratureEstimate,
    Witness,
    bits_per_dim,
    effective_sample_size,
    estimate_log_normalizer,
    eval_mode,
    exactly,
    judge,
    kl_gate,
    max_weight_share,
    pareto_k,
    summarize_log_weights,
)
from led_fast.density.diagnostics import fit_generalized_pareto
from led_fast.density.normalizer import _student_t_975
from led_fast.evaluation.image_normalizer import ImageNormalizer
from led_fast.flows import BatchNorm, DiagonalNormal, Linear, OneWayFlow, StandardNormal


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def normal_log_weights(variance, shape, mean=0.0):
    """Log-weights of the target N(mean, 1) under the proposal N(0, variance); log α = 0."""
    y = math.sqrt(variance) * torch.randn(shape, dtype=torch.float64)
    return -0.5 * (y - mean) ** 2 + 0.5 * y**2 / variance + 0.5 * math.log(variance)


def one_large_weight():
    log_weights = torch.zeros(20, 100)
    log_weights[3, 7] = 5.0
    return log_weights


def test_effective_sample_size_and_largest_share():
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    assert effective_sample_size(weights.log() + 500) == pytest.approx(100 / 30)
    assert max_weight_share(weights.log() - 500) == pytest.approx(0.4)
    assert effective_sample_size(torch.zeros(50)) == pytest.approx(50)


@pytest.mark.parametrize("shape", [-0.3, 0.1, 0.5, 0.9, 1.5])
def test_pareto_fit_against_known_tails_and_scipy(shape):
    excess = stats.genpareto.rvs(shape, scale=2.0, size=4000, random_state=0)
    k, sigma = fit_generalized_pareto(torch.from_numpy(np.sort(excess)))
    mle_k, _, mle_sigma = stats.genpareto.fit(excess, floc=0)
    assert k == pytest.approx(shape, abs=0.08)
    assert k == pytest.approx(mle_k, abs=0.02)
    assert sigma == pytest.approx(mle_sigma, rel=0.03)


@pytest.mark.parametrize("variance", [0.3, 0.5, 0.8])
def test_pareto_k_of_a_narrow_proposal_is_analytic(variance):
    # w = exp(c y²) with y normal has tail index 1 - variance, up to slowly varying factors.
    k = pareto_k(normal_log_weights(variance, 200_000))
    assert k == pytest.approx(1 - variance, abs=0.12)


def test_pareto_k_of_a_few_weights_that_tower_over_all_others():
    log_weights = torch.zeros(1000, dtype=torch.float64)
    log_weights[:3] = torch.tensor([60.0, 61.0, 62.0])
    assert pareto_k(log_weights) == math.inf


def test_pareto_k_of_light_tails():
    assert pareto_k(torch.zeros(1000)) == 0.0
    assert pareto_k(normal_log_weights(2.0, 10_000)) < 0.0
    assert pareto_k(torch.randn(1000) + 700) < 0.7  # log-normal: every moment is finite


@pytest.mark.parametrize("top", range(100, 121))
def test_tied_weights_have_a_tail_index(top):
    """Two values of weights: a grid of the fit then goes through 0, where its likelihood is 0/0."""
    log_weights = torch.zeros(2000)
    log_weights[:top] = math.log(2)
    assert pareto_k(log_weights) < 0.5


GOOD = summarize_log_weights(0.01 * torch.randn(20, 100, generator=torch.Generator().manual_seed(0)))
BROKEN = {
    "one NaN": torch.cat([torch.zeros(999), torch.tensor([math.nan])]),
    "one NaN among -inf": torch.cat([torch.full((999,), -math.inf), torch.tensor([math.nan])]),
    "NaN beside inf": torch.tensor([math.nan, math.inf]).repeat(500),
    "all -inf": torch.full((1000,), -math.inf),
    "one inf": torch.cat([torch.randn(999), torch.tensor([math.inf])]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_no_diagnostic_praises_broken_weights(name):
    log_weights = BROKEN[name]
    k = pareto_k(log_weights)
    assert k == math.inf if name == "one inf" else math.isnan(k)
    assert math.isnan(effective_sample_size(log_weights)) and math.isnan(max_weight_share(log_weights))
    estimate = summarize_log_weights(log_weights.view(20, -1))
    assert not estimate.reliable and estimate.reason
    broken = {"generator": Witness(estimate, "this"), "broad": Witness(estimate, "that")}
    assert not judge("generator", broken).reliable
    whole = QuadratureEstimate(math.nan, 0.0, math.nan, 1)
    assert not judge("generator", {"generator": Witness(GOOD, "this"), "quadrature": exactly(whole)}).reliable
    assert not kl_gate(log_weights, 0.0).passed or name == "all -inf"  # where N is zero, q may draw


def test_a_value_that_is_no_number_has_objections():
    agreeing = ImageNormalizer(GOOD, None, GOOD, None)
    assert agreeing.verdict(GOOD.value).reliable
    assert "differs" in agreeing.verdict(math.nan).reason


def test_student_quantile():
    for degrees in (19, 24, 99):
        assert _student_t_975(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), abs=1e-4)


def test_interval_covers_the_truth_as_often_as_it_says():
    hits = 0
    for _ in range(400):
        low, high = summarize_log_weights(normal_log_weights(1.5, (20, 100), mean=0.3)).ci95
        hits += low <= 0 <= high
    assert 0.92 <= hits / 400 <= 0.98


def test_a_good_proposal_is_reliable():
    estimate = summarize_log_weights(normal_log_weights(1.5, (20, 1000)))
    assert estimate.reliable and estimate.reason == ""
    assert estimate.ci95[0] < estimate.value < estimate.ci95[1]
    assert estimate.value == pytest.approx(0.0, abs=0.02)
    assert (estimate.samples, estimate.batches) == (20_000, 20)
    assert json.loads(json.dumps(asdict(estimate)))["ess_fraction"] > 0.8


def test_even_weights_need_not_be_many():
    estimate = summarize_log_weights(0.3 * torch.randn(20, 10))
    assert estimate.reliable and 170 < 200 * estimate.ess_fraction < 195


@pytest.mark.parametrize(
    ("log_weights", "reason"),
    [
        (lambda: normal_log_weights(0.1, (20, 1000)), "Pareto k"),
        (lambda: 3 * torch.randn(20, 100), "effective sample size"),
        (lambda: 1.2 * torch.randn(20, 25), "effective sample size"),
        (one_large_weight, "one weight carries"),
        (
            lambda: torch.zeros(20, 100).index_fill(1, torch.tensor([3]), math.nan),
            "20 of 2000 log-weights are NaN",
        ),
        (lambda: torch.full((20, 100), -math.inf), "every weight is zero"),
    ],
)
def test_bad_weights_are_called_unreliable(log_weights, reason):
    estimate = summarize_log_weights(log_weights())
    assert not estimate.reliable and reason in estimate.reason


def test_estimate_uses_eval_mode_and_restores_the_modes():
    # Batch statistics would normalise every batch to unit variance and report another density.
    generator = OneWayFlow(StandardNormal(2), [Linear(2), BatchNorm(2, statistics="batch")])
    with torch.no_grad():
        generator.layers[1].running_var.fill_(0.25)
    generator.layers[0].eval()
    before = {k: v.clone() for k, v in generator.state_dict().items()}
    critic = DiagonalNormal(torch.zeros(2), 2.0).log_prob  # the generator's very density: scale 1 / √.25
    estimate = estimate_log_normalizer(critic, generator, samples=2000)
    assert estimate.value == pytest.approx(0.0, abs=1e-4) and estimate.ess_fraction == pytest.approx(
        1.0, abs=1e-4
    )
    assert generator.layers[1].training and not generator.layers[0].training
    for name, value in generator.state_dict().items():
        assert torch.equal(value, before[name])


def test_eval_mode_restores_after_an_error():
    module = torch.nn.Sequential(torch.nn.Dropout())
    with pytest.raises(KeyError), eval_mode(module, None):
        assert not module[0].training
        raise KeyError
    assert module.training and module[0].training


def test_kl_gate():
    base, critic = StandardNormal(1), DiagonalNormal(torch.zeros(1), 1.2)
    y, log_q = base.rsample_and_log_prob(20_000)
    log_weights = critic.log_prob(y) - log_q
    gate = kl_gate(log_weights, 0.0)
    assert gate.passed and gate.kl == pytest.approx(math.log(1.2) + 0.5 / 1.44 - 0.5, abs=2 * gate.ci95)
    assert not kl_gate(log_weights, -0.1).passed  # a claimed log α that is too low
    assert kl_gate(log_weights, -0.1, log_normalizer_ci95=0.2).passed
    log_weights[0] = -math.inf  # q draws where N is zero
    assert kl_gate(log_weights, 0.0) == (math.inf, math.inf, True)
    assert not kl_gate(log_weights, math.inf).passed and not kl_gate(log_weights, math.nan).passed


def test_bits_per_dim():
    # Uniform data on [0, 1] and [-1, 1]: 8 bits whatever the scaling.
    assert bits_per_dim(0.0, dims=784) == pytest.approx(8.0)
    assert bits_per_dim(-784 * math.log(2), dims=784, value_range=2.0) == pytest.approx(8.0)
    assert bits_per_dim(100.0, dims=10, levels=1) == pytest.approx(-100 / (10 * math.log(2)))


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: summarize_log_weights(torch.zeros(5, 100)), "20 batches or more"),
        (lambda: summarize_log_weights(torch.zeros(100)), r"got \(100,\)"),
        (
            lambda: estimate_log_normalizer(None, None, samples=10),
            "samples must be at least batches = 20, got 10",
        ),
        (lambda: pareto_k(torch.zeros(5)), "25 or more"),
        (lambda: bits_per_dim(0.0, dims=0), "dims"),
    ],
)
def test_bad_arguments(act, message):
    with pytest.raises(ValueError, match=message):
        act()
