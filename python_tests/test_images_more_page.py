"""docs/images_more.md says what the committed result files do."""

import json
from pathlib import Path

import pytest

from led_fast.density import Verdict
from led_fast.reproduce.content import read_content
from led_fast.reproduce.table2 import markdown

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "images_more.md").read_text()
FOLDERS = {"Fashion-MNIST": "fashion", "CIFAR-10": "cifar10", "Pictures on white, 64×64": "emoji64"}
SECTIONS = {FOLDERS[text.partition("\n")[0]]: text for text in PAGE.split("\n## ")[1:]}


@pytest.mark.parametrize("folder", SECTIONS)
def test_figures_of_the_runs(folder):
    report = json.loads((DOCS / "results" / folder / "led.json").read_text())
    normalizer, quality, refined = (
        Verdict.from_json(report["log_normalizer"]),
        report["quality"],
        report["quality_refined"],
    )
    for text in (
        f"{report['steps']:,} steps",
        f"It took {report['seconds'] / 60:.0f} minutes",
        f"| **{report['bits_per_dim']:.3f}** ± {report['bits_per_dim_standard_error']:.3f} |",
        f"| {report['bits_per_dim_generator']:.3f} | training images, critic {report['bits_per_dim_train']:.3f} |",
        f"| {report['gain']:.5f} ± {report['gain_standard_error']:.5f} |",
        f"| **{quality['distance']:.2f}** | real images {quality['distance_real']:.2f} |",
        f"| {refined['distance_resampled']:.2f} |",
        f"{refined['acceptance']:.0%} accepted | {refined['distance']:.2f} |",
        f"| {report['kl_gate']['kl']:.2f} nats |",
        f"| {normalizer.value:.2f} | | | | {'yes' if normalizer.reliable else 'no'} |",
        *(f"{other['auroc']:.4f} |" for other in report["outliers"].values()),
    ):
        assert text in SECTIONS[folder]
    assert ("**Log α can be believed**" in SECTIONS[folder]) == normalizer.reliable


def test_distances_by_another_network():
    report = json.loads((DOCS / "results" / "cifar10" / "efficientnet.json").read_text())
    quality, refined = report["quality"], report["quality_refined"]
    resampled, walked = refined["distance_resampled"], refined["distance"]
    text = " ".join(SECTIONS["cifar10"].split())
    assert f"the distances are {quality['distance']:.2f}, {resampled:.2f} and {walked:.2f}," in text
    assert f"and {quality['distance_real']:.2f} of real images" in text


def test_table2_on_cifar10():
    table = markdown(read_content(DOCS / "results" / "cifar10" / "table2.json"))
    rows = [line for line in table.split("| the paper, MNIST")[0].splitlines() if line.startswith("|")]
    assert len(rows) == 6 and all(row in SECTIONS["cifar10"] for row in rows)
