"""led-fast reproduce: every experiment in a few steps, and tables from results that are known."""

import json
import math
from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest
import torch
from coarse import coarsen

from led_fast import reproduce
from led_fast.cli import main
from led_fast.data import open_source
from led_fast.density import DensityModel
from led_fast.flows import OneWayFlow, StandardNormal
from led_fast.ops import reference_in_use
from led_fast.reproduce import ablations, figure7, figure8, led, penalty, speed, table1
from led_fast.reproduce.cell import Cell, Finished
from led_fast.reproduce.text import markdown_table, spread
from led_fast.training import Trainer


@pytest.fixture
def few(monkeypatch):
    """Fewer cells and steps than even --quick has; coarse kernel densities and normalisers."""
    coarsen(monkeypatch.setattr)
    monkeypatch.setattr(table1, "_QUICK_STEPS", 2)
    monkeypatch.setattr(ablations, "_QUICK_STEPS", 2)
    monkeypatch.setattr(ablations, "_QUICK_VARIANTS", ("default", "inflated-fixed"))
    monkeypatch.setattr(figure8, "_QUICK_STEPS", 2)
    monkeypatch.setattr(figure8, "_QUICK_SHAPES", {"paper": ((2, 3), (1,)), "default": ((2,), (1,))})
    monkeypatch.setattr(figure7, "_QUICK_STEPS", 4)
    monkeypatch.setattr(figure7, "_QUICK_MOMENTS", (2, 4))
    monkeypatch.setattr(figure7, "SAMPLES", (1, 64, 1024))
    monkeypatch.setattr(penalty, "_QUICK_STEPS", 2)
    monkeypatch.setattr(penalty, "_POINTS", 50)
    monkeypatch.setattr(speed, "_PRESETS", ("default", "paper"))
    monkeypatch.setattr(speed, "_QUICK_STEPS", 1)
    monkeypatch.setattr(led, "KDE_DRAWS", 100)
    monkeypatch.setattr(led, "_VALIDATION", 50)


@pytest.mark.parametrize("experiment", reproduce.EXPERIMENTS)
def test_every_experiment_in_a_few_steps(tmp_path, few, experiment):
    command = ["reproduce", experiment, "--quick", "--jobs", "1", "--out", str(tmp_path)]
    assert main(command) == 0
    content = json.loads((tmp_path / f"{experiment}.json").read_text())
    assert content["quick"] and content["command"].startswith(f"led-fast reproduce {experiment}")
    text = (tmp_path / f"{experiment}.md").read_text()
    assert "quick run: not a result" in text and "nan" not in text
    if reproduce.EXPERIMENTS[experiment].draw is not None:
        assert matplotlib.image.imread(tmp_path / f"{experiment}.png")[..., :3].std() > 0.05
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("cells/*/result.json")}
    assert main(command) == 0  # nothing is done twice
    assert before and before == {path: path.stat().st_mtime_ns for path in before}


def test_the_penalty_on_images(tmp_path, few):
    images = np.random.default_rng(0).integers(0, 256, (200, 32, 32), dtype=np.uint8)
    np.save(tmp_path / "noise.npy", images)
    cells = penalty.perpendicular_penalty(str(tmp_path / "noise.npy")).cells(1, True)
    cell = next(cell for cell in cells if cell.name.startswith("penalty-images-mnist32-direction"))
    (tmp_path / "cell").mkdir()
    result = cell.work(tmp_path / "cell", **cell.settings)
    assert math.isfinite(result["noise_margin"]) and math.isfinite(result["shifted_margin"])


def test_margins_of_a_density_that_is_known():
    normal = StandardNormal(2)
    x, near, far = torch.zeros(40, 2), torch.full((40, 2), 1.0), torch.full((300, 2), 2.0)
    result = penalty._margins(normal.log_prob, x, {"near": near, "far": far, "same": x})
    assert result["near_margin"] == pytest.approx(1) and result["far_margin"] == pytest.approx(4)
    assert result["far_auroc"] == 1 and result["same_margin"] == 0 and result["same_auroc"] == 0.5


def test_spread_and_table():
    assert spread([1.0, 2.0, 3.0], 1) == "2.0 ± 1.0"
    assert spread([1.0, None], 2) == "1.00" and spread([None], 1) == "—" and spread([], 1) == "—"
    assert markdown_table(["", "a"], [["x", "1"]]) == "|  | a |\n| --- | --- |\n| x | 1 |\n"


def report(modes, quality, **more):
    return {"modes": modes, "modes_total": 8, "high_quality_percent": quality, "bridge_percent": 1.0, **more}


def content_of(**results):
    return {"cells": {name: {"result": result} for name, result in results.items()}}


def test_table1_has_means_and_deviations_and_the_rows_of_others():
    full = {
        "steps": 2000,
        "high_quality_percent_refined": 98.5,
        "kl_data_model": 0.001,
        "kl_generator_model": 0.1,
        "held_out_nll": -4.29,
        "log_normalizer": {
            "value": 3.5,
            "interval": [3.4, 3.6],
            "reliable": True,
            "reason": "",
            "evidence": {
                "generator": {"value": 3.5, "ess_fraction": 0.9},
                "quadrature": {"value": 3.0},
                "broad": {"value": 3.25, "reliable": True},
                "annealed_forward": {"value": 2.0, "reliable": False},
            },
        },
        "kl_gate": {"passed": True},
        "kde": report(8, 90.0, kl_data_model=0.5, held_out_nll=-3.8),
    }
    cells = {
        "ring-default-0": report(8, 97.0, **full),
        "ring-default-1": report(7, 99.0, **full),
        "ring-paper_printed-0": {"diverged": "the loss is nan"},
        "ring-gan-0": report(1, 50.0, steps=2000),
    }
    text = table1.markdown(content_of(**cells))
    assert "over 2 seeds" in text
    assert (
        "| **LED, `default`**, 2,000 steps | 7.5 ± 0.7 | 98.0 ± 1.4 | 98.5 ± 0.0 | 1.00 ± 0.00 | 0.0010 ± 0.0000 |"
        " 0.100 ± 0.000 | -4.290 ± 0.000 | 0.900 ± 0.000 |"
    ) in text
    assert (
        "| **LED, `default`** | 0.5000 ± 0.0000 | 0.250 ± 0.000 | -1.000 ± 0.000 (flagged unreliable: 2 of 2) |"
        " — | 2 of 2 | 2 of 2 |"
    ) in text
    assert "| LED, `paper_printed` (1 of 1 diverged) | — |" in text
    assert "0 of 0" not in text  # which has no log α to count
    assert "| KDE on LED's samples | 8.0 ± 0.0 | 90.0 ± 0.0 | — |" in text
    assert "not run, needs `pip install zuko`" in text
    assert "| LED | 8 | 63.5 | LED, Table 1 |" in text and "| LED | 16.2 | 68.3 | LED, Table 1 |" in text


def test_table1_without_zuko_has_no_flow(monkeypatch):
    monkeypatch.setattr(table1.flow, "available", lambda: False)
    names = [cell.name for cell in table1.cells(5, quick=False)]
    assert len(names) == len(set(names)) == 5 * 2 * 5 and not any("flow" in name for name in names)


def test_every_ablation_changes_something():
    cells = ablations.cells(2, quick=False)
    settings = [json.dumps(cell.settings) for cell in cells]
    assert len(set(settings)) == len(cells) == 2 * len(ablations.VARIANTS)


def test_ablations_count_diverged_runs():
    estimates = {"generator": {"value": 1.5, "ess_fraction": 0.9}, "quadrature": {"value": 1.0}}
    judged = {
        "value": 1.5,
        "interval": [None, None],
        "reliable": True,
        "reason": "",
        "evidence": estimates,
    }
    good = report(25, 97.0, log_normalizer=judged)
    cells = {f"ablation-{name}-0": good for name in ablations.VARIANTS} | {"ablation-s1-1": {"diverged": "x"}}
    text = ablations.markdown(content_of(**cells))
    assert "| S = 1 (256 estimates a step) (1 of 2 diverged) | 25.0 | 97.0 |" in text
    assert "| 0.900 | 0.500 |" in text


class Normal(torch.nn.Module):
    """A critic of known integral, 2 π s²: a normal of standard deviation s without its factor."""

    def __init__(self, std):
        super().__init__()
        self.std = std

    def forward(self, x):
        return -0.5 * (x / self.std).square().sum(1)


def test_figure7_measures_a_known_normaliser():
    model = DensityModel(Normal(0.8), OneWayFlow(StandardNormal(2), []))
    source = SimpleNamespace(shift=torch.zeros(2).double(), scale=torch.ones(2).double())
    measured = figure7.measure(model, source, seed=0)
    assert abs(measured["log_alpha"] - math.log(2 * math.pi * 0.64)) < 1e-3
    errors = torch.tensor(measured["log_errors"])
    assert errors.shape == (len(figure7.SAMPLES), figure7.REPEATS)
    # w = exp(-(1/s² - 1) |y|²/2) · 2 π: E w² / (E w)² = 1 / (s² (2 - s²)).
    relative = math.sqrt((1 / (0.64 * 1.36) - 1) / figure7.SAMPLES[-1])
    assert errors[-1].mean().abs() < relative and relative / 2 < errors[-1].std() < 2 * relative
    assert abs(measured["ess_fraction"] - 0.64 * 1.36) < 0.02 and measured["pareto_k"] < 0.5


def test_speed_times_both_kinds_of_operators(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(Trainer, "step", lambda self: seen.append(reference_in_use()))
    result = speed.time_steps(tmp_path, "ring", "default", steps=2, rounds=1)
    assert seen == 2 * [False, False, True, True] and min(result.values()) > 0


def test_figure8_has_every_seed():
    good = [report(modes, quality) for modes, quality in ((7, 97.0), (8, 99.0))]
    cells = {f"shape-paper-1b-2f-{i}": result for i, result in enumerate([*good, {"diverged": "x"}])}
    text = figure8.markdown(content_of(**cells, **{"shape-default-1b-2f-0": good[0]}))
    paper, default = text.split("`default`")
    assert "| 1 block | 7.5 ± 0.7/8, 98.0 ± 1.4 % (1 of 3 diverged) |" in paper
    assert "| 1 block | 7/8, 97.0 % |" in default


def test_figure7_of_diverged_runs_alone_has_no_panels(tmp_path):
    cells = figure7.cells(1, quick=False)
    figure7.draw(
        tmp_path / "x.png", [Finished(c, tmp_path, {"result": {"diverged": "x"}}) for c in cells], ""
    )
    assert not (tmp_path / "x.png").exists()


def test_figure8_orders_its_panels(tmp_path, monkeypatch):
    panels = []
    monkeypatch.setattr(
        figure8, "points_figure", lambda path, rows, labels, note: panels.extend([labels, rows])
    )
    finished = [
        Finished(Cell(cell.name, cell.work, cell.settings), tmp_path, {"result": {"diverged": "x"}})
        for cell in figure8.cells(1, quick=False)
    ]
    figure8.draw(tmp_path / "x.png", finished, "")
    labels, rows = panels
    assert labels[:2] == ["paper, 2 blocks", "paper, 4 blocks"] and labels[3] == "default, 1 block"
    assert [panel.title for panel in rows[0][1]] == [f"{f} features: diverged" for f in (2, 8, 32, 256)]
    assert [panel.title for panel in rows[3][1]] == [f"{f} features: diverged" for f in (2, 4, 8)]
    assert open_source("grid").mixture.centers.equal(rows[0][0])
