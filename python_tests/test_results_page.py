"""docs/results.md is what its script makes of the committed result files, and these hold what is claimed."""

import importlib.util
from pathlib import Path

import pytest

from led_fast.density import Verdict
from led_fast.reproduce.content import read_content, results_by_variant

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def page():
    spec = importlib.util.spec_from_file_location("page", DOCS / "results" / "page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(page):
    assert (DOCS / "results.md").read_text() == page.page(), "run python docs/results/page.py"


def test_a_quick_run_is_no_result(page, monkeypatch):
    monkeypatch.setattr(page, "read_content", lambda path: read_content(path) | {"quick": True})
    with pytest.raises(ValueError, match=r"table1.json: is of a quick run"):
        page.section("table1")


@pytest.mark.parametrize("data, modes", [("ring", 8), ("grid", 25)])
def test_table1_holds_what_is_claimed(data, modes):
    reports = results_by_variant(read_content(DOCS / "results" / "table1.json"))[f"{data}-default"]
    assert [report["modes"] for report in reports] == 5 * [modes]
    assert sum(report["high_quality_percent"] for report in reports) / 5 >= 96
    assert sum(report["high_quality_percent_refined"] for report in reports) / 5 >= 98.3
    assert max(report["kl_data_model"] for report in reports) <= 0.01
    for report in reports:
        verdict = Verdict.from_json(report["log_normalizer"])
        assert verdict.reliable and verdict.evidence["generator"]["ess_fraction"] >= 0.6
        assert report["kl_gate"]["passed"]


def test_files_are_small():
    for path in (DOCS / "results").iterdir():
        assert path.is_dir() or path.stat().st_size <= 200_000, path


def test_the_papers_family_reaches_what_readme_says():
    cells = read_content(DOCS / "results" / "table1.json")["cells"]
    readme = (DOCS.parent / "README.md").read_text()
    for data, modes in (("ring", "8/8"), ("grid", "21.6/25")):
        reports = [cells[f"{data}-paper-{seed}"]["result"] for seed in range(5)]
        found = sum(report["modes"] for report in reports) / 5
        good = sum(report["high_quality_percent"] for report in reports) / 5
        assert f"{found:g}" == modes.split("/")[0] and modes in readme and f"{good:.0f} %" in readme
