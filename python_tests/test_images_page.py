"""docs/images.md says what the committed result files do."""

import json
from pathlib import Path

import pytest

from led_fast.density import Verdict
from led_fast.reproduce.content import read_content
from led_fast.reproduce.table2 import markdown

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "images.md").read_text()


@pytest.fixture(scope="module")
def report():
    return json.loads((DOCS / "results" / "mnist" / "led.json").read_text())


def test_figures_of_the_run(report):
    normalizer, quality = Verdict.from_json(report["log_normalizer"]), report["quality"]
    outliers = {name: found["auroc"] for name, found in report["outliers"].items()}
    for text in (
        f"{report['steps']:,} steps",
        f"It took {report['seconds'] / 60:.0f} minutes",
        f"| **{report['bits_per_dim']:.3f}** ± {report['bits_per_dim_standard_error']:.3f} |",
        f"| {report['bits_per_dim_generator']:.3f} | training images, critic {report['bits_per_dim_train']:.3f} |",
        f"({quality['accuracy']:.1%} accurate) | **{quality['distance']:.2f}** |".replace("%", " %"),
        f"| real images {quality['distance_real']:.2f} |",
        f"| {outliers['fashion-mnist']:.4f} |",
        f"| {outliers['uniform noise']:.4f} |",
        f"| {report['kl_gate']['kl']:.2f} nats |",
        f"| in use, from 5,000 samples at the end of training | {normalizer.value:.2f} |",
    ):
        assert text in PAGE
    assert normalizer.reliable and report["kl_gate"]["passed"]


@pytest.mark.parametrize("name", ["generator", "annealed", "pixels"])
def test_estimates_of_log_alpha(report, name):
    estimate = Verdict.from_json(report["log_normalizer"]).evidence[name]
    low, high = (
        infinite if end is None else f"{end:.2f}"
        for end, infinite in zip(estimate["ci95"], ("−∞", "∞"), strict=True)
    )
    effective = max(1, round(estimate["ess_fraction"] * estimate["samples"]))
    reliable = "yes" if estimate["reliable"] else "no"
    row = f"| {estimate['value']:.2f}, {low} to {high} | {estimate['samples']:,} | {effective:,} |".replace(
        "-", "−"
    )
    (line,) = [line for line in PAGE.splitlines() if row in line]
    assert line.endswith(f"| {reliable} |")


def test_readme(report):
    quality, text = report["quality"], (DOCS.parent / "README.md").read_text().replace("\n", " ")
    for figure in (
        f"a run on MNIST took {report['seconds'] / 60:.0f} minutes",
        f"{report['bits_per_dim']:.3f} bits per dimension",
        f"is {quality['distance']:.2f}, that of real images {quality['distance_real']:.2f}",
    ):
        assert figure in text


def test_table2():
    table = markdown(read_content(DOCS / "results" / "mnist" / "table2.json"))
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert len(rows) > 12 and all(row in PAGE for row in rows)
