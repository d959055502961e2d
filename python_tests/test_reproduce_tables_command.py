"""led-fast reproduce tables: cells, the command, and its page from results that are known."""

import importlib.util
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from rich.console import Console
from table_files import write_files

from led_fast.errors import InputError
from led_fast.kinds.tables import task
from led_fast.reproduce.harness import run_cells
from led_fast.reproduce.tables import cells as tables_cells
from led_fast.reproduce.tables import led, methods, page
from led_fast.reproduce.tables.model import Model

QUIET = Console(quiet=True)


def fit_standing_in(train, validation, seconds, seed, better=0.5):
    """LED's place: a normal fitted by moments, `better` over its own flow."""
    mean, scale = train.values.mean(axis=0), train.values.std(axis=0) + train.steps

    def log_prob(x):
        z = (x - mean) / scale
        return (-0.5 * z**2 - np.log(scale) - 0.5 * math.log(2 * math.pi)).sum(axis=1)

    return Model(lambda x: log_prob(x) + better, log_prob, {"seed": seed})


@pytest.fixture
def few(tmp_path, monkeypatch):
    """Files, the small data sets and two methods: a stand-in for LED and kernels."""
    monkeypatch.setattr(tables_cells, "NAMES", ("letter", "mixture"))
    monkeypatch.setattr(tables_cells, "_QUICK_ROWS", 200)
    chosen = {
        "led": methods.Method("**LED**", fit_standing_in),
        "kernels": methods.METHODS["kernels"],
        "absent": methods.Method("absent", fit_standing_in, needs="no_such_package"),
    }
    for module in (tables_cells, page):
        monkeypatch.setattr(module, "METHODS", chosen)
    return write_files(tmp_path)


def content(results, seconds=1.0):
    made = {r.cell.name: {"settings": r.cell.settings, "result": r.result} for r in results}
    return {"cells": made}


def test_cells_are_done_once_and_make_a_page(few, tmp_path, monkeypatch):
    made = tables_cells.cells(2, True, str(few), 60.0)
    assert len({cell.name for cell in made}) == len(made) == 14
    results = run_cells(made, tmp_path / "out", "command", 1, QUIET)
    by_name = {r.cell.name: r.result for r in results}
    led = by_name["likelihood-letter-led-1"]
    assert led["train_rows"] == 140 and led["columns"] == 3 and led["info"] == {"seed": 1}
    assert led["gain"]["mean"] == pytest.approx(0.5)
    own = led["generator"]["log_likelihood"]["mean"]
    assert led["log_likelihood"]["mean"] == pytest.approx(own + 0.5)
    assert 0.3 < by_name["anomaly-letter-kernels-0"]["auroc"] < 1
    assert by_name["anomaly-letter-led-0"]["generator"].keys() == {"auroc"}
    truth = by_name["likelihood-mixture-truth-0"]["log_likelihood"]["mean"]
    assert truth > by_name["likelihood-mixture-kernels-0"]["log_likelihood"]["mean"]

    text = page.markdown(content(results))
    assert "Every method had 1 seconds" in text and "over 2 seeds" in text
    assert "Not run: absent, shuttle, satellite, digits, edges" in text
    head = [line for line in text.splitlines() if line.startswith("| letter (3 columns, 140 rows) |")]
    assert len(head) == 1 and head[0].count("|") == 7
    monkeypatch.setattr(tables_cells, "METHODS", {})
    again = run_cells(made, tmp_path / "out", "command", 1, QUIET)
    assert [r.result for r in again] == [r.result for r in results]


def test_changed_data_are_refused(few, tmp_path):
    cell = tables_cells.cells(1, True, str(few), 60.0)[0]
    write_files(few, rows=301)
    with pytest.raises(InputError, match="letter has changed since these results were begun"):
        run_cells([cell], tmp_path / "out", "command", 1, QUIET)


def fake(likelihoods, aurocs):
    """Content of one seed: method -> value."""
    made = {}
    for name, value in likelihoods.items():
        head = {"columns": 16, "train_rows": 14000, "training_seconds": 60.0}
        made[f"likelihood-letter-{name}-0"] = {**head, **judged(value)}
    for name, value in aurocs.items():
        made[f"anomaly-letter-{name}-0"] = {"auroc": value, "training_seconds": 6.0}
    made["likelihood-letter-led-0"] |= {
        "generator": judged(-11.4),
        "gain": {"mean": 1.0, "standard_error": 0.02},
    }
    return {"cells": {k: {"settings": {"seconds": 60.0}, "result": v} for k, v in made.items()}}


def judged(value):
    error = None if value is None else 0.07
    return {"log_likelihood": {"mean": value, "standard_error": error}, "not_finite": 3 * (value is None)}


def test_the_command_in_a_second_a_method(few, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tables_cells, "NAMES", ("letter",))
    monkeypatch.setattr(task, "_NORMALIZER_DRAWS", 2000)
    chosen = {"led": methods.Method("**LED**", led.fit_led), "kernels": methods.METHODS["kernels"]}
    for module in (tables_cells, page):
        monkeypatch.setattr(module, "METHODS", chosen)
    out = tmp_path / "out"
    command = ["reproduce", "tables", "--data", few, "--seeds", "1", "--quick", "--jobs", "4", "--out", out]
    monkeypatch.setattr("led_fast.reproduce.harness._run_in_processes", None)  # cells must not share a core
    fit = chosen["kernels"].fit
    failing = methods.Method("KDE", lambda *a, **k: pytest.fail("stopped"))
    monkeypatch.setitem(chosen, "kernels", failing)
    with pytest.raises(pytest.fail.Exception, match="stopped"):
        run(*command)
    monkeypatch.setitem(chosen, "kernels", methods.Method("KDE", fit))
    assert run(*command) == 0
    assert "1 of 4 cells are done already" in capsys.readouterr().out
    made = json.loads((out / "tables.json").read_text())
    assert made["command"] == f"led-fast reproduce tables --data {few.name} --seeds 1 --quick"
    assert len(made["cells"]) == 4
    result = made["cells"]["likelihood-letter-led-0"]["result"]
    assert result["columns"] == 3 and result["train_rows"] == 140 and result["info"]["steps"] >= 1
    assert math.isfinite(result["log_likelihood"]["mean"]) and math.isfinite(result["gain"]["mean"])
    assert 0 < made["cells"]["anomaly-letter-led-0"]["result"]["auroc"] < 1
    text = (out / "tables.md").read_text()
    assert "quick run: not a result" in text and "| letter (3 columns, 140 rows) |" in text
    assert not (out / "tables.png").exists()
    for name, method in chosen.items():
        monkeypatch.setitem(chosen, name, replace(method, fit=failing.fit))
    assert run(*command) == 0  # nothing is done twice


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["tables"], "--data: want DIR for tables, got none"),
        (
            ["tables", "--data", "nowhere"],
            "letter.csv: no such file; --data DIR must hold letter.csv, shuttle.csv",
        ),
        (["speed", "--data", "nowhere"], "--data: is for table2, tables and penalty, got speed"),
    ],
)
def test_data_that_are_missing_or_in_vain(arguments, message, tmp_path, capsys):
    assert run("reproduce", *arguments, "--out", tmp_path / "out") == 2
    assert message in capsys.readouterr().err and not list(tmp_path.rglob("*.json"))


def test_the_page_says_where_led_loses():
    text = page.markdown(
        fake({"led": -10.4, "nsf": -10.5, "kernels": -12}, {"led": 0.95, "forest": 0.97, "nsf": 0.9})
    )
    rows = [line for line in text.splitlines() if line.startswith("| letter")]
    assert "| -11.40 ± 0.07 | -10.40 ± 0.07 | -10.50 ± 0.07 |" in rows[0] and rows[0].endswith(
        "| 0.10 (NSF) |"
    )
    assert rows[1] == "| letter | 1.000 ± 0.020 |"
    assert rows[2].endswith("| **LED loses:** -0.0200 (isolation forest) |")
    text = page.markdown(fake({"led": -10.6, "nsf": -10.5}, {"led": 0.95, "nsf": 0.9}))
    assert "| **LED loses:** -0.10 (NSF) |" in text and "| 0.0500 (NSF) |" in text


def test_a_broken_density_does_not_win():
    text = page.markdown(fake({"led": -10.4, "nsf": None, "kernels": -12}, {"led": 0.95, "nsf": 0.9}))
    (row, *_) = [line for line in text.splitlines() if line.startswith("| letter")]
    assert "| −∞ (3 rows) |" in row and row.endswith("| 1.60 (KDE) |")
    text = page.markdown(fake({"led": None, "nsf": -10.5}, {}))
    assert "| **LED loses:** its density broke (NSF) |" in text
    judge = tables_cells._judge
    assert judge(np.array([0.0, np.nan]), None) == {
        "log_likelihood": {"mean": None, "standard_error": None},
        "not_finite": 1,
    }
    assert judge(np.array([1.0, np.nan]), np.array([0.0, 0.5])) == {"auroc": 0.5}


def test_the_page_of_a_result_file(tmp_path):
    script = Path(__file__).parents[1] / "docs" / "results" / "tables" / "page.py"
    spec = importlib.util.spec_from_file_location("tables_page", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    head = {"command": "led-fast reproduce tables --data tables --seeds 1", "quick": False}
    content = head | fake({"led": -10.4, "nsf": -10.5}, {"led": 0.95})
    for cell in content["cells"].values():
        cell.update(version="1", torch="2", machine="a machine")
    (tmp_path / "tables.json").write_text(json.dumps(content))
    text = module.page(tmp_path / "tables.json")
    assert text.startswith("# Results on tables") and page.markdown(content) in text
    assert (
        "`led-fast reproduce tables --data tables --seeds 1`: version 1, torch 2, a machine, one thread"
        in text
    )
    (tmp_path / "tables.json").write_text(json.dumps(content | {"quick": True}))
    with pytest.raises(ValueError, match=r"tables\.json: is of a quick run"):
        module.page(tmp_path / "tables.json")
