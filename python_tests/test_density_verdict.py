"""One rule for every kind of data: what one estimate cannot see, another must."""

import json
import math
from dataclasses import replace

import pytest
import torch

from led_fast.density import (
    AnnealedBracket,
    NormalizerEstimate,
    QuadratureEstimate,
    Verdict,
    Witness,
    annealed_log_normalizer,
    by_quadrature,
    estimate_log_normalizer,
    exactly,
    judge,
)
from led_fast.evaluation import plane_verdict
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
    verdict = plane_verdict(generator, broad, annealed)
    assert not verdict.reliable and "broad differs by +0." in verdict.reason
    assert "annealed_forward differs by +0." in verdict.reason
    only_broad = plane_verdict(generator, broad, None)
    only_annealed = plane_verdict(generator, replace(broad, reliable=False), annealed)
    assert "broad differs" in only_broad.reason and "annealed_forward differs" in only_annealed.reason


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
    verdict = plane_verdict(generator, broad, annealed)
    assert verdict.reliable and verdict.reason == ""
    assert (verdict.value, verdict.interval) == (generator.value, generator.ci95)


def estimate(value=1.0, half_width=0.1, reliable=True):
    ci95 = (value - half_width, value + half_width)
    return NormalizerEstimate(
        value, ci95, 2000, 20, 0.9, 0.001, 0.1, reliable, "" if reliable else "few weights"
    )


A, B = (Witness(estimate(), kind) for kind in ("a", "b"))
POOR = Witness(estimate(reliable=False), "b")


@pytest.mark.parametrize(
    "claim, witnesses, reason",
    [
        ("x", {"x": A, "y": B}, ""),
        (1.0, {"x": A, "y": B}, ""),
        ("x", {"x": A}, "no other kind of estimate is reliable than x"),
        ("x", {"x": A, "y": A}, "no other kind of estimate is reliable than x and y"),
        ("x", {"x": A, "y": POOR}, "no other kind of estimate is reliable than x (not y)"),
        ("x", {"x": POOR, "y": A, "z": B}, "few weights"),  # two others agree, but not on its interval
        (1.0, {"x": POOR}, "no estimate is reliable"),
        (1.0, {}, "no estimate is reliable"),
        # Bounded weights leave nothing unseen: one suffices, if it is reliable.
        ("x", {"x": replace(A, role="bounded")}, ""),
        ("x", {"x": replace(POOR, role="bounded")}, "few weights"),
        (1.5, {"x": replace(A, role="bounded")}, "x differs by -0.500 nats"),
        # No second kind confirms it, so a value must lie within its interval, half of .2 on either side.
        (1.09, {"x": replace(A, role="bounded")}, ""),
        (1.11, {"x": replace(A, role="bounded")}, "x differs by -0.110 nats"),
        (
            1.0,
            {"x": replace(POOR, role="bounded"), "y": A},
            "no other kind of estimate is reliable than y (not x)",
        ),
        # A bound contradicts, and does not confirm.
        ("x", {"x": A, "y": replace(B, role="bound")}, "no other kind of estimate is reliable than x"),
        (
            "x",
            {"x": A, "y": B, "z": Witness(estimate(0.5), "c", "bound")},
            "z differs by -0.500 nats",
        ),
        ("x", {"x": A, "y": B, "z": Witness(estimate(9.0, reliable=False), "c", "bound")}, ""),
        # The widths of .2 add up to .283.
        ("x", {"x": A, "y": Witness(estimate(1.28), "b")}, ""),
        ("x", {"x": A, "y": Witness(estimate(1.29), "b")}, "y differs by +0.290 nats"),
        (1.0, {"x": A, "y": Witness(estimate(1.21), "b")}, "y differs by +0.210 nats"),
        # Markov: the mean weight is α, however it spreads.
        ("x", {"x": A, "y": B, "z": Witness(estimate(3.9, reliable=False), "b")}, ""),
        (
            "x",
            {"x": A, "y": B, "z": Witness(estimate(4.1, reliable=False), "b")},
            "z, which is unbiased, exceeds it by 3.1 nats",
        ),
        ("x", {"x": A, "y": B, "z": Witness(estimate(-9.0, reliable=False), "b")}, ""),
        (math.nan, {"x": A, "y": B}, "x differs by +nan nats; y differs by +nan nats"),
    ],
)
def test_the_rule(claim, witnesses, reason):
    verdict = judge(claim, witnesses)
    assert verdict.reason == reason and verdict.reliable is (reason == "")
    assert verdict.evidence.keys() == witnesses.keys()


def test_a_tolerance_is_added_to_the_intervals():
    witnesses = {"x": A, "y": B}
    assert judge(1.29, witnesses, tolerance=0.1).reliable
    assert not judge(1.31, witnesses, tolerance=0.1).reliable


def test_an_upper_bound_below_the_estimate_contradicts_it():
    good = estimate_log_normalizer(FarModes(2), DiagonalNormal(torch.zeros(2), 5.0))
    bound = replace(good, value=good.value - 1, ci95=(good.ci95[0] - 1, good.ci95[1] - 1))
    verdict = plane_verdict(good, good, AnnealedBracket(good, bound))
    assert not verdict.reliable and verdict.reason == "annealed_reverse differs by -1.000 nats"


def test_quadrature_is_the_judge():
    good = estimate_log_normalizer(FarModes(2), DiagonalNormal(torch.zeros(2), 5.0))
    poor = replace(good, value=good.value - 9, reliable=False, reason="effective sample size 2 < 400")
    exact = QuadratureEstimate(LOG_ALPHA, 1e-4, 1e-6, 1000)
    assert plane_verdict(good, poor, AnnealedBracket(poor, poor), exact).reliable  # nothing else counts
    off = exact._replace(value=good.value - 1)
    assert plane_verdict(good, good, None, off).reason == "quadrature differs by -1.000 nats"
    assert "differs" in plane_verdict(good, good, None, exact._replace(value=math.nan)).reason
    for error in (0.3, math.nan):
        reason = plane_verdict(good, good, None, exact._replace(error=error)).reason
        assert "quadrature has an error of" in reason
    assert "10.0% of the mass" in plane_verdict(good, good, None, exact._replace(edge_share=0.1)).reason
    assert plane_verdict(poor, good, None, exact).reason.startswith(
        "effective sample size 2 < 400; quadrature differs by +8.99"
    )


def test_a_log_alpha_by_quadrature():
    exact = QuadratureEstimate(2.5, 1e-4, 1e-6, 1000)
    verdict = by_quadrature(exact)
    assert (verdict.value, verdict.interval) == (2.5, (2.4999, 2.5001)) and verdict.reliable
    assert QuadratureEstimate.from_json(verdict.evidence["quadrature"]) == exact
    for poor in ({"error": 0.1}, {"edge_share": 0.1}, {"value": math.nan}, {"error": math.nan}):
        assert not by_quadrature(exact._replace(**poor)).reliable


def test_json_takes_a_verdict_there_and_back():
    quadrature = exactly(QuadratureEstimate(1.0, 1e-4, 1e-6, 1000))
    endless = Witness(replace(estimate(reliable=False), ci95=(-math.inf, math.inf)), "b")
    for verdict in (
        judge("x", {"x": A, "y": endless, "quadrature": quadrature}),
        judge(1.0, {"x": A}),
        judge("y", {"y": endless}),
    ):
        text = json.dumps(verdict.to_json(), allow_nan=False)
        assert Verdict.from_json(json.loads(text)) == replace(
            verdict, evidence=json.loads(json.dumps(verdict.evidence))
        )
    unknown = Verdict.from_json(judge(math.nan, {}, (math.nan, math.nan)).to_json())
    assert math.isnan(unknown.value) and unknown.interval == (-math.inf, math.inf) and not unknown.reliable


FLAT = {"value": 1.0, "ci95": [0.9, None], "samples": 2000, "ess_fraction": 0.5}


def test_reports_of_points_of_version_0_1():
    broad = {"value": 1.1, "reliable": True, "reason": ""}
    old = FLAT | {
        "broad": broad,
        "annealed_forward": None,
        "annealed_reverse": broad,
        "quadrature": 1.2,
        "quadrature_error": 1e-5,
        "quadrature_edge_share": 1e-6,
        "reliable": False,
        "reason": "differs from quadrature by 0.200 nats",
    }
    verdict = Verdict.from_json(old)
    assert (verdict.value, verdict.interval, verdict.reliable) == (1.0, (0.9, math.inf), False)
    assert verdict.reason == old["reason"]
    assert verdict.evidence.keys() == {"generator", "broad", "annealed_reverse", "quadrature"}
    assert verdict.evidence["generator"] == FLAT | {"reliable": None, "reason": None}
    assert verdict.evidence["quadrature"]["value"] == 1.2 and verdict.evidence["quadrature"]["error"] == 1e-5
    assert Verdict.from_json(verdict.to_json()) == verdict


def test_reports_of_images_of_version_0_1():
    old = {"used": None, "reliable": False, "reason": "no", "generator": FLAT, "pixels": FLAT}
    verdict = Verdict.from_json(old)
    assert math.isnan(verdict.value) and verdict.interval == (-math.inf, math.inf)
    assert verdict.reason == "no" and verdict.evidence == {"generator": FLAT, "pixels": FLAT}
