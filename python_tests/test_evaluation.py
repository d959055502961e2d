import io
import math

import pytest
import torch
from report_page import undocumented
from rich.console import Console
from torch import nn

from led_fast.data import MixtureSource, PointsSource, grid, ring
from led_fast.density import (
    AnnealedBracket,
    AnnealedEstimate,
    DensityModel,
    NormalizerEstimate,
    QuadratureEstimate,
)
from led_fast.density.json_values import finite
from led_fast.evaluation import (
    count_modes,
    evaluate,
    plane_verdict,
    quadrature_in_data_coordinates,
    report_table,
)
from led_fast.evaluation.normalizer import anneal


class MixtureCritic(nn.Module):
    """The exact density of a mixture times exp(offset), with the stated log-weights of its modes."""

    def __init__(self, mixture, offset=0.0, log_tilt=None):
        super().__init__()
        self.mixture, self.offset = mixture, offset
        self.log_tilt = torch.zeros(len(mixture.centers)) if log_tilt is None else log_tilt

    def forward(self, x):
        return self.mixture.log_prob(x) + self.offset + self.log_tilt[self.mixture.nearest(x)[1]]


class MixtureSampler(nn.Module):
    """Draws of a mixture, with the density that is asked for (the true one unless modes are dropped)."""

    def __init__(self, mixture, modes=None, bridge=0.0):
        super().__init__()
        self.mixture, self.modes, self.bridge = mixture, modes or len(mixture.centers), bridge

    def rsample_and_log_prob(self, n):
        x = type(self.mixture)(self.mixture.centers[: self.modes], self.mixture.std).sample(n)
        share = math.log(len(self.mixture.centers) / self.modes)
        return x, self.mixture.log_prob(x) + share

    def sample(self, n):
        x = self.rsample_and_log_prob(n)[0]
        x[: round(self.bridge * n)] *= 0.5
        return x


def perfect(mixture, offset=2.5, modes=None, bridge=0.0, log_tilt=None):
    model = DensityModel(MixtureCritic(mixture, offset, log_tilt), MixtureSampler(mixture, modes, bridge))
    model.set_log_normalizer(offset)
    return model


@pytest.mark.parametrize("make", [ring, grid])
def test_quadrature_of_the_exact_density(make):
    mixture = make()
    estimate = quadrature_in_data_coordinates(MixtureCritic(mixture, 2.5), mixture.mean, mixture.scale)
    assert estimate.value == pytest.approx(2.5, abs=1e-3)


def test_count_modes_by_hand():
    centers, std = ring().centers, 0.01
    near, far = torch.tensor([2.9 * std, 0.0]), torch.tensor([0.0, 3.1 * std])
    points = torch.stack([centers[0] + near, centers[0], centers[1] + far, centers[2]])
    assert count_modes(points, ring()) == count_modes(points.float(), ring())
    assert count_modes(points, ring()).modes == 2
    assert count_modes(points, ring()).high_quality_percent == 75.0


def test_the_truth_gets_a_perfect_report():
    source = MixtureSource("ring", ring())
    report = evaluate(perfect(ring()), source, seed=0).report
    assert (report["modes"], report["modes_total"], report["modes_refined"]) == (8, 8, 8)
    for key in ("high_quality_percent", "high_quality_percent_refined", "high_quality_percent_oracle"):
        assert report[key] == pytest.approx(98.889, abs=0.7)
    assert report["bridge_percent"] == pytest.approx(1.11, abs=0.3)
    assert report["kl_data_model"] == pytest.approx(0, abs=1e-6)
    assert report["kl_generator_model"] == pytest.approx(0, abs=2e-3)  # the quadrature's error
    assert report["held_out_nll"] == pytest.approx(report["entropy"], abs=0.02)
    verdict, normalizer = report["log_normalizer"], report["log_normalizer"]["evidence"]
    assert report["schema"] == 2
    assert verdict["value"] == normalizer["generator"]["value"] == pytest.approx(2.5, abs=1e-6)
    assert normalizer["generator"]["ess_fraction"] == pytest.approx(1)
    assert verdict["reliable"] and verdict["reason"] == ""
    for name in ("broad", "annealed_forward", "annealed_reverse"):
        assert normalizer[name]["value"] == pytest.approx(2.5, abs=0.2)
    assert normalizer["broad"]["reliable"]
    assert report["kl_gate"]["passed"]
    assert not undocumented(report, "points")


def test_known_divergence_is_reported():
    # Modes 0-3 weigh e times as much as modes 4-7; both tilts are known exactly.
    tilt = torch.tensor([1.0] * 4 + [0.0] * 4).double()
    model = perfect(ring(), 0.0, log_tilt=tilt)
    log_mean = math.log((math.e + 1) / 2)
    model.set_log_normalizer(log_mean)
    report = evaluate(model, MixtureSource("ring", ring()), seed=0).report
    assert report["kl_data_model"] == pytest.approx(log_mean - 0.5, abs=0.01)
    assert report["log_normalizer"]["evidence"]["quadrature"]["value"] == pytest.approx(log_mean, abs=2e-3)


def test_a_quadrature_that_cuts_mass_off_vouches_for_nothing():
    estimate = NormalizerEstimate(0.0, (-0.1, 0.1), 20_000, 20, 1.0, 1e-4, 0.0, True, "")
    seen = plane_verdict(estimate, estimate, None, QuadratureEstimate(0.0, 1e-4, 1e-6, 1000))
    cut = plane_verdict(estimate, estimate, None, QuadratureEstimate(0.0, 1e-4, 0.3, 1000))
    assert seen.reliable and not cut.reliable
    assert "30.0% of the mass lies at the edge" in cut.reason


def test_a_generator_that_drops_modes_is_called_unreliable():
    report = evaluate(perfect(ring(), modes=4), MixtureSource("ring", ring()), seed=0).report
    assert report["modes"] == 4
    verdict = report["log_normalizer"]
    by_generator, broad = (verdict["evidence"][name] for name in ("generator", "broad"))
    assert (
        by_generator["ess_fraction"] == pytest.approx(1) and by_generator["reliable"]
    )  # it sees nothing wrong
    assert not verdict["reliable"] and "quadrature differs by +0.69" in verdict["reason"]
    assert broad["value"] == pytest.approx(2.5, abs=0.1)


def test_bridges_lower_the_quality():
    report = evaluate(perfect(ring(), bridge=0.2), MixtureSource("ring", ring()), seed=0).report
    assert report["high_quality_percent"] == pytest.approx(0.8 * 98.889, abs=0.8)


def test_unknown_truth_leaves_its_rows_out():
    mixture = grid()
    torch.manual_seed(0)
    source = PointsSource("rows", mixture.sample(2000))
    evaluation = evaluate(perfect(mixture), source, seed=0)
    assert evaluation.report["modes"] is None and evaluation.report["kl_data_model"] is None
    assert evaluation.report["held_out_points"] == 200
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(report_table(evaluation.report))
    text = console.export_text()
    assert "held-out NLL" in text and "modes" not in text
    assert all(name in text for name in ("by quadrature", "by a broad proposal", "from below", "from above"))


def test_annealing_that_fails_is_left_out_and_other_errors_are_not_hidden():
    def broken(_):
        raise RuntimeError("not the warm-up's fault")

    source = MixtureSource("ring", ring())
    assert anneal(lambda x: 0 * x.sum(1) - math.inf, source, source.sample(600)) is None
    with pytest.raises(RuntimeError, match="not the warm-up's fault"):
        anneal(broken, source, source.sample(600))


def test_same_seed_same_report():
    source = MixtureSource("ring", ring())
    reports = [evaluate(perfect(ring()), source, seed).report for seed in (3, 3, 4)]
    assert reports[0] == reports[1] != reports[2]


def test_every_estimate_stands_under_its_own_name():
    truth = evaluate(perfect(ring()), MixtureSource("ring", ring()), seed=0).report
    generator, broad = (
        NormalizerEstimate(v, (v - 0.01, v + 0.02), 20_000, 20, 0.5, 1e-3, 0.2, True, "") for v in (1.0, 1.1)
    )
    annealed = AnnealedBracket(
        *(
            AnnealedEstimate(
                v, (v - 0.01, v + 0.02), 600, 20, 0.5, 1e-3, 0.2, True, "", 0.01, 200, 1, 0.6, 9.0
            )
            for v in (1.2, 1.3)
        )
    )
    report = plane_verdict(generator, broad, annealed, QuadratureEstimate(1.4, 1e-4, 0.0, 1000))
    console = Console(record=True, width=200, file=io.StringIO())
    console.print(report_table(truth | {"log_normalizer": report.to_json()}))
    lines = console.export_text().splitlines()
    for name, value in {
        "log α ": 1.0,
        "by quadrature": 1.4,
        "by a broad proposal": 1.1,
        "by annealing, from below": 1.2,
        "by annealing, from above": 1.3,
    }.items():
        (line,) = (line for line in lines if name in line and "reliable" not in line)
        interval = f"95 % interval {value - 0.01:.4f} to {value + 0.02:.4f}"
        assert f"{value:.4f}" in line and (interval in line or name == "by quadrature")


def test_disagreement_within_the_interval_is_none():
    estimate = NormalizerEstimate(1.0, (0.9, 1.1), 20_000, 20, 0.5, 0.001, 0.2, True, "")
    for quadrature, reliable in ((1.15, True), (1.25, False)):
        report = plane_verdict(estimate, estimate, None, QuadratureEstimate(quadrature, 1e-4, 0.0, 1000))
        assert report.reliable is reliable


def test_json_gets_no_nan():
    assert finite({"a": [math.nan, 1.0], "b": {"c": -math.inf}}) == {"a": [None, 1.0], "b": {"c": None}}
