"""docs/tables.md is what its script makes of the committed result file, and that holds what is claimed."""

import runpy
from pathlib import Path
from statistics import mean

import pytest

from led_fast.reproduce.content import read_content
from led_fast.reproduce.tables.cells import ANOMALY, LIKELIHOOD
from led_fast.reproduce.tables.methods import LED
from led_fast.reproduce.tables.page import GENERATOR, by_method

DOCS = Path(__file__).parents[1] / "docs"
RESULTS = DOCS / "results" / "tables" / "tables.json"
REAL = ("letter", "shuttle", "satellite", "digits")


@pytest.fixture(scope="module")
def results():
    return by_method(read_content(RESULTS))


def likelihood(results, data, method):
    return mean(report["log_likelihood"]["mean"] for report in results[LIKELIHOOD, data, method])


def test_the_page_is_up_to_date():
    page = runpy.run_path(str(RESULTS.parent / "page.py"))["page"]
    assert (DOCS / "tables.md").read_text() == page(RESULTS), "run python docs/results/tables/page.py"


def test_three_seeds_of_everything(results):
    assert {len(reports) for reports in results.values()} == {3}


def test_log_alpha_is_reliable_throughout(results):
    for task, data, method in results:
        if method == LED:
            assert all(report["info"]["reliable"] for report in results[task, data, method]), (task, data)


def test_the_tilt_never_loses_to_its_flow(results):
    gains = {data: [report["gain"] for report in results[LIKELIHOOD, data, LED]] for data in (*REAL, "edges")}
    for data in REAL:
        assert all(gain["mean"] > 2 * gain["standard_error"] for gain in gains[data]), data
    assert all(gain["mean"] > -2 * gain["standard_error"] for gain in gains["edges"])
    assert likelihood(results, "mixture", LED) > likelihood(results, "mixture", GENERATOR)


def test_led_beside_a_spline_flow_after_the_same_marginals(results):
    leads = [likelihood(results, data, LED) - likelihood(results, data, "nsf_marginal") for data in REAL]
    assert sum(lead >= 0 for lead in leads) >= 3
    assert leads[0] >= 0.3


def test_anomalies(results):
    found = {data: mean(r["auroc"] for r in results[ANOMALY, data, LED]) for data in ("shuttle", "letter")}
    assert found["shuttle"] >= 0.998 and found["letter"] >= 0.98
