"""Tables through the command line: 300 rows of a discrete, a continuous and a constant column, and labels."""

import csv
import json
import math
import signal
from contextlib import nullcontext
from functools import partial

import duckdb
import numpy as np
import pytest
import torch
from command_line import run
from report_page import undocumented
from states import same_state

from led_fast.data.tables import TableSource, read_table
from led_fast.evaluation.tables import evaluate_table
from led_fast.flows import Marginal
from led_fast.kinds.points import kind as points_kind
from led_fast.kinds.tables import TablesTask, kind, task
from led_fast.training import TrainConfig, Trainer, World, load
from led_fast.training.checkpoint import load_state
from led_fast.training.run import read_metrics

ROWS, STEPS = 300, 40
HEADER = ["count", "width", "unit", "class"]
RNG = np.random.default_rng(0)
COUNT = RNG.integers(0, 5, ROWS)
WIDTH = RNG.normal(size=ROWS) + COUNT
LABELS = ["odd" if i % 10 == 0 else "usual" for i in range(ROWS)]
DENSE = list(zip(COUNT.tolist(), WIDTH.tolist(), [7] * ROWS, LABELS, strict=True))


def write(path, rows, header=HEADER, separator=","):
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=separator).writerows([header, *rows] if header else rows)
    return path


@pytest.fixture(scope="module", autouse=True)
def few():
    """Few draws for log α, which take longer than so short a training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task, "_NORMALIZER_DRAWS", 20_000)
        patch.setattr(kind, "evaluate_table", partial(evaluate_table, draws=20_000))
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data") / "parts.csv", DENSE)


@pytest.fixture(scope="module")
def trained(data):
    path = data.parent / "run"
    assert train(data, path) == 0
    return path


def train(data, path, *options):
    return run("train", data, "--ignore", "class", "--steps", STEPS, "--seed", 1, "--out", path, *options)


def scores(path, trained, capsys):
    """(rows of the output, what is said on stderr)."""
    capsys.readouterr()
    assert run("score", trained, path) == 0
    shown = capsys.readouterr()
    return list(csv.DictReader(shown.out.splitlines())), shown.err


def densities(found):
    return [float(row["log_density"]) for row in found]


# ---- training


def test_a_trial_makes_a_share_of_what_begins_a_stage(data):
    source = TableSource("parts.csv", read_table(data, ["class"]))
    made = TablesTask(TrainConfig.of(source, steps=STEPS), source)
    sizes = []
    for share in (1.0, 0.1):
        made.begin("calibration", share)
        sizes.append([len(part) for part in (made._pool, made._validation_pool, made._validation_data)])
    assert sizes[1] == [math.ceil(0.1 * size) for size in sizes[0]]


def test_a_file_is_read_once_to_learn_from(data, tmp_path, monkeypatch):
    read, times = kind.read_table, []
    for where in (kind, points_kind):
        monkeypatch.setattr(where, "read_table", lambda *a, **k: times.append(a) or read(*a, **k))
    fitted = []
    fit = Marginal.fit.__func__
    monkeypatch.setattr(Marginal, "fit", classmethod(lambda *a: fitted.append(a) or fit(*a)))
    assert run("train", data, "--ignore", "class", "--minutes", 0.02, "--out", tmp_path / "once") == 0
    assert len(times) == len(fitted) == 1


def test_a_run_is_described_and_reported(trained, data, capsys):
    config = json.loads((trained / "config.json").read_text())
    assert (config["kind"], config["preset"], config["reading"]["ignore"]) == ("tables", "table", ["class"])
    assert [(c["name"], c["step"]) for c in config["model"]["columns"]] == [("count", 1.0), ("width", 0.0)]
    assert [c["name"] for c in config["model"]["constants"]] == ["unit"]
    assert run("evaluate", trained, "--anomaly", "class=odd") == 0
    assert "AUROC of class = odd" in capsys.readouterr().out
    report = json.loads((trained / "report.json").read_text())
    anomaly = report["anomaly"]
    assert anomaly["odd_rows"] + anomaly["other_rows"] == report["test_rows"] == 30
    assert 0 <= anomaly["auroc"] <= 1
    assert report["log_normalizer"]["reliable"] and report["log_normalizer"]["reason"] == ""
    assert not undocumented(report)
    for picture in ("density.png", "columns.png"):
        assert (trained / picture).read_bytes().startswith(b"\x89PNG")


def test_the_density_integrates_to_one_over_counts_and_widths(trained):
    """By a sum of squares: counts are dequantised, so that the density is one of real numbers."""
    count, width = torch.arange(-1.475, 5.5, 0.05), torch.arange(-6, 10, 0.05)
    grid = torch.cartesian_prod(count.double(), width.double())
    with torch.no_grad():
        density = load(trained).log_prob(grid).exp()
    assert density.sum().item() * 0.05**2 == pytest.approx(1, abs=0.01)


def interrupted_at(step, monkeypatch):
    """Sends SIGTERM in that step of the next run, which is finished and saved."""
    take = Trainer.step

    def signalled(self):
        if self.steps_done == step - 1:
            signal.raise_signal(signal.SIGTERM)
        return take(self)

    monkeypatch.setattr(Trainer, "step", signalled)


@pytest.mark.parametrize("step", [10, 24, 31], ids=["flow", "end of the flow", "tilt"])
def test_a_stopped_run_resumes_bit_for_bit(step, trained, data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("led_fast.cli.train.write_report", lambda *_: True)
    with pytest.MonkeyPatch.context() as patch:
        interrupted_at(step, patch)
        assert train(data, tmp_path / "run") == 143
    assert f"stopped after step {step}" in capsys.readouterr().err
    state = load_state(tmp_path / "run" / "checkpoint.safetensors", "checkpoint")
    assert state["trainer"]["steps_done"] == step and not (tmp_path / "run" / "model.safetensors").exists()
    assert run("train", data, "--resume", "--out", tmp_path / "run") == 0
    whole, resumed = (
        load_state(path / "model.safetensors", "model")["model"] for path in (trained, tmp_path / "run")
    )
    assert same_state(whole, resumed)
    rows = [
        [(row["step"], row.get("validation")) for row in read_metrics(path / "metrics.jsonl")]
        for path in (trained, tmp_path / "run")
    ]
    assert rows[0][-1] == rows[1][-1]


def test_a_run_resumes_on_the_same_rows_only(trained, data, tmp_path, refuse):
    other = write(tmp_path / "other.csv", DENSE[1:])
    assert "is not the data" in refuse("train", other, "--resume", "--out", trained)
    assert "with ignore ('class',), not ('unit',)" in refuse(
        "train", data, "--resume", "--ignore", "unit", "--out", trained
    )


# ---- scores


def test_scores_do_not_depend_on_how_a_file_is_written(trained, data, tmp_path, capsys):
    found, said = scores(data, trained, capsys)
    assert len(found) == ROWS and "passed over columns that the model does not know: unit, class" in said
    assert sorted(int(row["rank"]) for row in found)[0] == 1
    turned = write(tmp_path / "t.csv", [row[::-1] for row in DENSE], HEADER[::-1])
    few = write(tmp_path / "few.csv", [row[:2] for row in DENSE], HEADER[:2])
    comma = [[row[0], repr(row[1]).replace(".", ",")] for row in DENSE]
    german = write(tmp_path / "german.csv", comma, HEADER[:2], ";")
    nameless = write(tmp_path / "nameless.csv", [row[:2] for row in DENSE], None)
    array = tmp_path / "array.npy"
    np.save(array, np.stack([COUNT, WIDTH], 1))
    for path in (turned, few, german, nameless, array):
        assert densities(scores(path, trained, capsys)[0]) == densities(found), path


def test_a_row_that_contradicts_itself_is_strange_and_explained(trained, tmp_path, capsys):
    strange = write(tmp_path / "s.csv", [*DENSE, (2, 40.0, 7, "odd")])
    found, _ = scores(strange, trained, capsys)
    assert int(found[-1]["rank"]) == ROWS + 1 and found[-1]["odd_columns"].startswith("width (40)")


@pytest.mark.parametrize(
    "header, row, message",
    [
        (["count", "height"], [1, 0.5], "lacks the column width; its columns are count, height"),
        (["count", "width"], [1, "wide"], "column 'width', row 301: 'wide' is not a number"),
        (["count", "width"], [1, ""], "column 'width', row 301: the value is missing, as in 1 of 301 rows"),
        (["count", "width"], [1, "inf"], "column 'width', row 301: inf is not finite"),
    ],
)
def test_score_refuses_rows_that_do_not_fit(trained, tmp_path, refuse, header, row, message):
    path = write(tmp_path / "bad.csv", [*(dense[:2] for dense in DENSE), row], header)
    said = refuse("score", trained, path, "--out", tmp_path / "scores.csv")
    assert f"bad.csv: {message}" in said and "--" not in said  # no option of training helps here
    assert not (tmp_path / "scores.csv").exists()


# ---- samples


@pytest.mark.parametrize("refine", [[], ["--refine"]])
def test_samples_have_the_tables_columns_and_types(trained, tmp_path, refine):
    for suffix in (".csv", ".tsv", ".parquet", ".npy"):
        drawn = ["-n", 50, "--seed", 3, *refine, "--out", tmp_path / f"s{suffix}"]
        assert run("sample", trained, *drawn) == 0
    described = duckdb.sql(f"DESCRIBE SELECT * FROM '{tmp_path / 's.parquet'}'").fetchall()
    assert [row[:2] for row in described] == [("count", "BIGINT"), ("width", "DOUBLE"), ("unit", "BIGINT")]
    table = duckdb.sql(f"SELECT * FROM '{tmp_path / 's.parquet'}'").fetchnumpy()
    rows = list(csv.reader((tmp_path / "s.csv").open()))
    assert rows[0] == HEADER[:3] and rows == list(csv.reader((tmp_path / "s.tsv").open(), delimiter="\t"))
    assert [int(row[0]) for row in rows[1:]] == table["count"].tolist()
    assert np.isin(table["count"], range(5)).mean() > 0.95  # but for the tails
    assert set(table["unit"]) == {7}
    array = np.load(tmp_path / "s.npy")
    assert array.shape == (50, 3)
    np.testing.assert_array_equal(array, np.stack([table[name] for name in HEADER[:3]], 1))


def test_seeds_decide_samples(trained, capsys):
    drawn = []
    for seed in (1, 1, 2):
        assert run("sample", trained, "-n", 5, "--seed", seed) == 0
        drawn.append(capsys.readouterr().out)
    assert drawn[0] == drawn[1] != drawn[2] and drawn[0].startswith("count,width,unit\n")


def test_two_columns_of_small_integers_are_a_table(tmp_path, capsys):
    pairs = write(tmp_path / "pairs.csv", RNG.integers(0, 5, (150, 2)).tolist(), ["a", "b"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("led_fast.cli.train.write_report", lambda *_, **__: True)
        assert run("train", pairs, "--steps", 5, "--out", tmp_path / "run") == 0
    assert "on a lattice, so dequantised: a, b" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "config.json").read_text())["kind"] == "tables"
    assert run("sample", tmp_path / "run", "-n", 200) == 0
    header, *rows = csv.reader(capsys.readouterr().out.splitlines())
    values = [value for row in rows for value in row]
    assert header == ["a", "b"] and all(str(int(value)) == value for value in values)
    assert np.isin(values, list("01234")).mean() > 0.95  # but for the tails


# ---- refusals


@pytest.mark.parametrize(
    "options, message",
    [
        (["--objective", "gan"], "--objective: tables have no plain GAN"),
        (["--precision", "bf16"], "--precision: bf16 has too few digits for the critic of a table"),
        (["--preset", "tabel"], "for tables table, got 'tabel'"),
        (["--preset", "default"], "want two columns for points in the plane, got 4"),
        (["--strict"], "--strict: is for images, and these are tables"),
        (["--ignore", "klass"], "has no column 'klass' to ignore; its columns are count, width, unit, class"),
    ],
)
def test_train_refuses(data, tmp_path, refuse, options, message):
    path = write(tmp_path / "numbers.csv", [(*row[:3], i / 7) for i, row in enumerate(DENSE)])
    assert message in refuse("train", path, *options, "--out", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_text_and_missing_values_are_named_with_a_way_out(data, tmp_path, refuse):
    said = refuse("train", data, "--out", tmp_path / "new")
    assert "column 'class', row 1: 'odd' is not a number; leave out with --ignore class" in said
    gap = write(tmp_path / "gap.csv", [*DENSE, (1, "", 7, "usual")])
    said = refuse("train", gap, "--ignore", "class", "--out", tmp_path / "new")
    assert "column 'width', row 301: the value is missing, as in 1 of 301 rows" in said
    assert "--drop-missing" in said and not (tmp_path / "new").exists()


def test_several_processes_are_refused_before_a_folder_is_made(data, tmp_path, refuse, monkeypatch):
    monkeypatch.setattr("led_fast.cli.train.join_world", lambda *_: nullcontext(World(0, 2)))
    said = refuse("train", data, "--ignore", "class", "--out", tmp_path / "new")
    assert "tables are trained by one process, got 2: start led-fast without torchrun" in said
    assert not (tmp_path / "new").exists()


def test_what_tables_have_not_is_refused(trained, tmp_path, refuse):
    for option, value in (("--features", "classifier"), ("--ood", tmp_path), ("--samples", 200)):
        message = refuse("evaluate", trained, option, value)
        assert f"{option}: is for images, and these are tables" in message
    for command in ("interpolate", "refine"):
        message = refuse(command, trained, "--out", tmp_path / "x.png")
        assert f"{command}: is for images, and these are tables" in message
    assert "want a file that ends in .csv, .tsv, .parquet, .npy" in refuse(
        "sample", trained, "--out", tmp_path / "s.png"
    )
    before = (trained / "report.json").read_bytes()
    for anomaly, message in (
        ("odd", "--anomaly: want COLUMN=VALUE, got 'odd'"),
        ("unit=7", "no column 'unit' was ignored"),
        ("class=rare", "column 'class': want one of its values, 'odd', 'usual', got 'rare'"),
    ):
        assert message in refuse("evaluate", trained, "--anomaly", anomaly)
    assert (trained / "report.json").read_bytes() == before


def test_options_of_tables_are_refused_for_images(tmp_path, refuse):
    images = tmp_path / "images.npz"
    np.savez(images, images=RNG.integers(0, 256, (120, 8, 8), dtype=np.uint8))
    for options in (["--ignore", "a"], ["--drop-missing"]):
        message = refuse("train", images, "--preset", "tiny", *options, "--out", tmp_path / "new")
        assert f"{options[0]}: is for" in message and "and these are images" in message
