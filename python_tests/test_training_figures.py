"""The default recipe reaches its figures: minutes, so only `pytest -m slow` runs it."""

import json

import pytest

from led_fast.cli import main


@pytest.mark.slow
@pytest.mark.parametrize("data, modes", [("ring", 8), ("grid", 25)])
def test_the_default_recipe_learns_the_density(tmp_path, data, modes):
    assert main(["train", data, "--out", str(tmp_path / data)]) == 0
    report = json.loads((tmp_path / data / "report.json").read_text())
    normalizer = report["log_normalizer"]
    assert report["modes"] == report["modes_total"] == modes
    assert report["high_quality_percent"] >= 94
    assert (
        abs(report["high_quality_percent_refined"] - 98.89) < 1.2
    )  # s.e. 0.2 of 2,500 true samples, more of resampled
    assert report["kl_data_model"] <= 0.02
    assert abs(normalizer["value"] - normalizer["evidence"]["quadrature"]["value"]) <= 0.03
    assert normalizer["reliable"] and report["kl_gate"]["passed"]
