"""LED beside its rivals on tables: exact truths, the same rows for everyone, densities that integrate to one."""

import importlib.util
import json
import math
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from rich.console import Console
from scipy.integrate import quad

from led_fast.errors import InputError
from led_fast.kinds.tables import task
from led_fast.reproduce.harness import run_cells
from led_fast.reproduce.tables import cells as tables_cells
from led_fast.reproduce.tables import led, methods, page, rivals, synthetic
from led_fast.reproduce.tables.coordinates import after_marginal, standardized
from led_fast.reproduce.tables.datasets import LabelledTable, open_dataset
from led_fast.reproduce.tables.model import Model
from led_fast.reproduce.tables.splits import Rows, anomaly_split, likelihood_split
from led_fast.reproduce.tables.zuko_flow import FlowSettings

QUIET = Console(quiet=True)
SPACES = [standardized, after_marginal]


def midpoints(low, high, count):
    edges = np.linspace(low, high, count + 1)
    return (edges[1:] + edges[:-1]) / 2, (high - low) / count


def integral(log_prob, first, second):
    """Of a density in the plane by the midpoint rule over (low, high, count) a side, and its E[log p]."""
    (x, dx), (y, dy) = midpoints(*first), midpoints(*second)
    density = log_prob(np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1).reshape(-1, 2))
    weights = np.exp(density) * dx * dy
    return weights.sum(), (weights[weights > 0] * density[weights > 0]).sum()


# ---- synthetic data ----------------------------------------------------------------------------------


def test_mixture_in_the_plane_is_normalised_and_its_samples_are_its_own():
    truth = synthetic.mixture(dim=2, components=5)
    box = (-9.0, 9.0, 450)
    total, negentropy = integral(truth.log_prob, box, box)
    assert total == pytest.approx(1, abs=1e-6)
    sampled = truth.log_prob(truth.sample(10_000, np.random.default_rng(0)))
    assert sampled.mean() == pytest.approx(negentropy, abs=4 * sampled.std() / 100)


def test_samples_of_the_mixture_follow_its_density():
    """E[p(x - d) / p(x)] over x ~ p is 1 for every shift d, in any number of columns."""
    truth = synthetic.mixture()
    x = truth.sample(10_000, np.random.default_rng(1))
    for axis in range(truth.dim):
        shift = 0.05 * (np.arange(truth.dim) == axis)
        ratio = np.exp(truth.log_prob(x - shift) - truth.log_prob(x))
        assert ratio.mean() == pytest.approx(1, abs=4 * ratio.std() / 100), axis


def test_mixture_against_normals_by_their_covariance():
    """One component: the moments of many samples give the same density as the closed form."""
    truth = synthetic.mixture(dim=4, components=1)
    x = truth.sample(400_000, np.random.default_rng(2))
    mean, covariance = x.mean(axis=0), np.cov(x.T)
    z = x[:200] - mean
    expected = -0.5 * (z @ np.linalg.inv(covariance) * z).sum(axis=1)
    expected -= 0.5 * np.linalg.slogdet(2 * math.pi * covariance)[1]
    np.testing.assert_allclose(truth.log_prob(x[:200]), expected, atol=0.05)


def test_checkerboard():
    total, negentropy = integral(synthetic.log_checkerboard, (-3.0, 3.0, 60), (-3.0, 3.0, 60))
    assert total == pytest.approx(1, abs=1e-12) and negentropy == pytest.approx(-math.log(8), abs=1e-12)


def test_moons_are_normalised_and_integrate_the_arc():
    total, _ = integral(synthetic.log_moons, (-1.6, 2.6, 105), (-1.1, 1.6, 90))
    assert total == pytest.approx(1, abs=1e-7)
    points = np.array([[0.0, 1.0], [1.9, 0.4], [0.5, 0.2], [-1.1, -0.1]])

    def along(angle, point):
        moons = [(math.cos(angle), math.sin(angle)), (1 - math.cos(angle), 0.5 - math.sin(angle))]
        squares = [(point[0] - a) ** 2 + (point[1] - b) ** 2 for a, b in moons]
        return sum(math.exp(-s / (2 * 0.08**2)) for s in squares) / (2 * math.pi * 2 * math.pi * 0.08**2)

    expected = [
        quad(along, 0, math.pi, (p,), epsabs=1e-13, limit=500, points=[0.1, 1.5, 3])[0] for p in points
    ]
    np.testing.assert_allclose(np.exp(synthetic.log_moons(points)), expected, rtol=1e-6)


def test_edges_have_the_entropy_of_their_parts():
    truth = synthetic.edges()
    values = truth.log_prob(truth.sample(10_000, np.random.default_rng(3)))
    _, moons = integral(synthetic.log_moons, (-1.6, 2.6, 105), (-1.1, 1.6, 90))
    expected = -math.log(8) + moons - 6 * math.log(2 * math.pi * math.e)
    assert values.mean() == pytest.approx(expected, abs=4 * values.std() / 100)


# ---- data sets and splits ------------------------------------------------------------------------------


def write_files(folder, rows=300):
    """Small files of the wanted names: a column of whole numbers, two continuous ones."""
    random = np.random.default_rng(0)
    classes = {"letter": "ABCDE", "shuttle": ["Rad.Flow", "High"], "satellite": "pqrstu"}
    for name, labels in classes.items():
        lines = ["whole,class,real,other"]
        for i in range(rows):
            real = random.standard_normal()
            other = real + 0.3 * random.standard_normal()
            # Rarer and rarer labels.
            label = labels[min(int(random.exponential(1.2)), len(labels) - 1)]
            lines.append(f"{i % 4}.0,{label},{real:.6f},{other:.6f}")
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_files_are_read(tmp_path):
    table = open_dataset("letter", write_files(tmp_path))
    assert table.columns == ("whole", "real", "other") and table.values.shape == (300, 3)
    assert table.values.dtype == np.float64 and likelihood_split(table, 0).train.steps.tolist() == [1, 0, 0]
    assert set(table.labels) == set("ABCDE") and table.normal == ("A", "B", "C")
    np.testing.assert_array_equal(table.values[:5, 0], [0, 1, 2, 3, 0])
    assert open_dataset("satellite", tmp_path).normal == ("p", "q", "r")
    assert table.fingerprint != table.first(299).fingerprint and len(table.first(5).labels) == 5


@pytest.mark.parametrize(
    "text, message",
    [
        (None, r"letter\.csv: no such file; --data DIR must hold letter\.csv, shuttle\.csv, satellite\.csv"),
        ("a,b\n1,2\n", r"letter\.csv: want a column 'class', got a, b"),
        ("a,class\nred,A\n", r"letter\.csv: want rows of 1 finite numbers and a class: .*'red'"),
        ("a,b,class\n1,2,A\n1,A\n", r"letter\.csv: want rows of 2 finite numbers and a class, got 1,A"),
        ("a,class\nnan,A\n", r"letter\.csv: want rows of 1 finite numbers and a class, got nan"),
        ("", r"letter\.csv: holds no rows"),
        ("a,class\n", r"letter\.csv: holds no rows"),
    ],
)
def test_bad_files_are_named(tmp_path, text, message):
    if text is not None:
        (tmp_path / "letter.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        open_dataset("letter", tmp_path)


def test_digits_and_synthetic_sets():
    pytest.importorskip("sklearn")
    digits = open_dataset("digits", "nowhere")
    assert digits.values.shape == (1797, 64)
    split = likelihood_split(digits, 0)
    assert split.test.shape[1] == 61 and split.train.steps.min() >= 1  # three pixels are always white
    mixture = open_dataset("mixture", "nowhere")
    assert mixture.values.shape == (26_000, 8) and likelihood_split(mixture, 0).train.steps.max() == 0
    np.testing.assert_array_equal(mixture.values[:9], open_dataset("mixture", "nowhere").values[:9])


def numbered(rows=1000):
    """A row is known by its first value."""
    values = np.stack([np.arange(rows) + 0.5, np.arange(rows) % 7, np.full(rows, 3.0)], axis=1)
    labels = np.where(np.arange(rows) % 5 == 0, "odd", "usual")
    return LabelledTable("numbered", values, ("id", "level", "constant"), labels, ("usual",))


def test_every_row_has_one_part_and_everyone_the_same():
    table = numbered()
    split, again, other = (likelihood_split(table, seed) for seed in (0, 0, 1))
    parts = [split.train.values[:, 0], split.validation.values[:, 0], split.test[:, 0]]
    assert [len(part) for part in parts] == [700, 100, 200] and split.odd is None
    assert sorted(np.concatenate(parts).tolist()) == table.values[:, 0].tolist()
    np.testing.assert_array_equal(split.test, again.test)
    np.testing.assert_array_equal(split.train.values, again.train.values)
    assert set(other.test[:, 0]) != set(split.test[:, 0])
    assert split.train.steps.tolist() == [0, 1]  # the constant column is gone everywhere
    assert split.train.values.shape[1] == split.validation.values.shape[1] == split.test.shape[1] == 2
    noise = split.test[:, 1] - np.rint(split.test[:, 1])
    assert np.abs(noise).max() <= 0.5 and noise.std() == pytest.approx(12**-0.5, rel=0.1)


def test_led_and_its_rivals_dequantize_alike(monkeypatch):
    """LED tells the steps of its rows by itself; rivals and test rows must have the same ones."""
    random = np.random.default_rng(0)
    values = np.stack(
        [
            random.integers(5, size=110) / 4,
            3.0 * random.integers(9, size=110),
            random.permutation(110),  # whole numbers, none twice: continuous
            random.standard_normal(110),
        ],
        axis=1,
    )
    split = likelihood_split(LabelledTable("steps", values, ("a", "b", "c", "d")), 0)
    sources = []

    class Opened(Exception):
        """LED has seen its columns, which is all that is wanted."""

    def stop(config, source, console):
        sources.append(source)
        raise Opened

    monkeypatch.setattr(led, "steps_in", lambda *a, **k: 1)
    monkeypatch.setattr(led, "fit", stop)
    with pytest.raises(Opened):
        led.fit_led(split.train, split.validation, 1.0, 0)
    assert split.train.steps.tolist() == split.validation.steps.tolist() == [0.25, 3, 0, 0]
    assert [column.step for column in sources[0].columns] == split.train.steps.tolist()
    np.testing.assert_array_equal(sources[0].rows("train"), split.train.values)
    np.testing.assert_array_equal(sources[0].rows("validation"), split.validation.values)
    assert sources[0].size("test") == 0
    quarter = split.test[:, 0] * 4
    assert (
        0.4 < np.abs(quarter - np.rint(quarter)).max() <= 0.5
        and np.isin(split.test[:, 2], values[:, 2]).all()
    )


def test_odd_rows_are_never_trained_on(monkeypatch):
    monkeypatch.setattr("led_fast.reproduce.tables.splits._MOST_JUDGED", 150)
    table = numbered()
    split = anomaly_split(table, 0)
    odd = set(table.values[table.labels == "odd", 0])
    assert set(split.odd[:, 0]) <= odd and len(split.odd) == 150 and len(split.test) == 150
    for part in (split.train.values, split.validation.values, split.test):
        assert not odd & set(part[:, 0])
    assert len(split.train.values) == 560
    with pytest.raises(ValueError, match="want a table with labels and normal classes, got 'numbered'"):
        anomaly_split(replace(table, labels=None), 0)


# ---- rivals --------------------------------------------------------------------------------------------

SMALL = {
    "NSF": FlowSettings(transforms=1, width=16, bins=4),
    "MAF": FlowSettings(family="MAF", transforms=2, width=16),
}
FITS = {
    **{
        f"{name}, {space.__name__}": partial(rivals.fit_flow, s, space)
        for name, s in SMALL.items()
        for space in SPACES
    },
    **{f"mixture, {space.__name__}": partial(rivals.fit_normal_mixture, space) for space in SPACES},
    "kernels": partial(rivals.fit_kernels, standardized),
}


@pytest.fixture(scope="module")
def plane():
    """Column 0 on a lattice of step 2, column 1 continuous and wide; they depend on each other."""
    random = np.random.default_rng(0)
    level = 2.0 * random.integers(4, size=400) + 1
    values = np.stack([level, 5 * level + 8 * random.standard_normal(400)], axis=1)
    return [Rows(part, np.array([2.0, 0.0])) for part in np.split(values, [300])]


@pytest.mark.parametrize("name", FITS)
def test_densities_integrate_to_one_in_data_units(name, plane):
    pytest.importorskip("sklearn" if "mixture" in name else "zuko")
    FITS[name](*plane, seconds=0.0, seed=0)  # what is slow the first time
    model = FITS[name](*plane, seconds=0.4, seed=0)
    total, _ = integral(model.log_prob, (-10.0, 18.0, 280), (-80.0, 120.0, 400))
    assert total == pytest.approx(1, abs=6e-3)
    held_out = plane[1].dequantized(np.random.default_rng(1))
    # The truth: 4 cells of width 2, and a normal of σ = 8 given the cell.
    truth = -math.log(8) - math.log(8) - 0.5 * math.log(2 * math.pi * math.e)
    assert truth - 0.8 < model.log_prob(held_out).mean() < truth + 0.2


def test_a_flow_stops_in_time(plane):
    pytest.importorskip("zuko")
    FITS["NSF, standardized"](*plane, seconds=0.0, seed=0)  # what is slow the first time
    start = time.process_time()
    model = FITS["NSF, standardized"](*plane, seconds=0.6, seed=0)
    assert 0.6 <= time.process_time() - start < 1.2
    assert 0 < model.info["best_step"] <= model.info["steps"] and model.info["skipped_steps"] == 0


def test_a_flow_keeps_the_moment_that_validation_rows_like_best():
    pytest.importorskip("zuko")
    values = np.random.default_rng(0).standard_normal((120, 2))
    train, validation = Rows(values[:20], np.zeros(2)), Rows(values[20:], np.zeros(2))
    settings = FlowSettings(transforms=1, width=32, learning_rate=3e-2)
    model = rivals.fit_flow(settings, standardized, train, validation, seconds=1.0, seed=0)
    assert model.info["best_step"] < model.info["steps"]  # twenty rows are soon learned by heart
    in_data_units = model.info["validation"] - np.log(train.values.std(axis=0)).sum()
    assert model.log_prob(validation.values).mean() == pytest.approx(in_data_units, abs=1e-4)


def test_validation_rows_choose_the_number_of_normals():
    pytest.importorskip("sklearn")
    random = np.random.default_rng(0)
    values = random.choice([-9.0, 0.0, 9.0], (600, 1)) + random.standard_normal((600, 2))
    train, validation = Rows(values[:400], np.zeros(2)), Rows(values[400:], np.zeros(2))
    model = rivals.fit_normal_mixture(standardized, train, validation, seconds=9.0, seed=0)
    assert 3 <= model.info["components"] <= 8
    assert rivals.fit_normal_mixture(standardized, train, validation, 0.0, 0).info["components"] == 1


def test_a_rival_without_time_still_has_a_model(plane):
    pytest.importorskip("zuko")
    pytest.importorskip("sklearn")
    for fit in FITS.values():
        assert np.isfinite(fit(*plane, seconds=0.0, seed=0).log_prob(plane[1].values)).all()


def test_isolation_forest_ranks(plane):
    pytest.importorskip("sklearn")
    score = rivals.fit_isolation_forest(*plane, seconds=1.0, seed=0).log_prob
    assert score(plane[1].values).mean() > score(plane[1].values + 200).mean()


# ---- cells and page --------------------------------------------------------------------------------------


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
        (["tables"], "--data DIR: tables wants it"),
        (
            ["tables", "--data", "nowhere"],
            "letter.csv: no such file; --data DIR must hold letter.csv, shuttle.csv",
        ),
        (["speed", "--data", "nowhere"], "--data DIR: only table2, tables and penalty take it"),
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
