"""The command line in the plane: what it writes and prints, and how it refuses what it cannot do."""

import json
import shutil

import numpy as np
import pytest
import torch
from coarse import coarsen
from command_line import run
from report_page import undocumented

from led_fast import __version__
from led_fast.cli import main
from led_fast.training import DivergenceError, Trainer, load
from led_fast.training.checkpoint import load_state, save_state

REPORT_KEYS = {
    "schema",
    "modes",
    "modes_total",
    "high_quality_percent",
    "high_quality_percent_refined",
    "kl_data_model",
    "log_normalizer",
    "seed",
    "seconds",
    "evaluated_with",
    "config",
}
EVIDENCE = {"generator", "broad", "quadrature"}


STEP = Trainer.step


@pytest.fixture(scope="module", autouse=True)
def coarse():
    with pytest.MonkeyPatch.context() as patch:
        coarsen(patch.setattr)
        yield


@pytest.fixture(scope="module")
def ring_run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "ring"
    assert run("train", "ring", "--steps", 4, "--seed", 1, "--out", path) == 0
    return path


def test_a_gan_of_points_has_samples_but_no_density(tmp_path, capsys, refuse):
    path, points = tmp_path / "gan", tmp_path / "points.npy"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", STEP)
        assert run("train", "ring", "--objective", "gan", "--steps", 2, "--out", path) == 0
    assert "a plain GAN has no density" in capsys.readouterr().out and not (path / "report.json").exists()
    assert run("sample", path, "-n", 5, "--out", points) == 0 and np.load(points).shape == (5, 2)
    for command in (
        ["evaluate", path],
        ["score", path, points],
        ["sample", path, "--refine"],
        ["sample", path, "--out", tmp_path / "a.png"],
    ):
        assert "a plain GAN" in (message := refuse(*command)) and "no density" in message


def contents(folder):
    files = (path for path in folder.iterdir() if path.is_file())  # tensorboard has a folder
    return {path.name: path.read_bytes() for path in files if path.name != ".lock"}


def test_train_writes_every_file(ring_run):
    assert set(contents(ring_run)) == {
        "config.json",
        "checkpoint.safetensors",
        "metrics.jsonl",
        "model.safetensors",
        "report.json",
        "density.png",
    }
    report = json.loads((ring_run / "report.json").read_text())
    assert report.keys() >= REPORT_KEYS and report["log_normalizer"]["evidence"].keys() >= EVIDENCE
    assert (report["seed"], report["steps"], report["evaluated_with"]["version"]) == (1, 4, __version__)
    assert not undocumented(report)
    config = json.loads((ring_run / "config.json").read_text())
    assert config["recipe"] == report["config"]["recipe"] and config["version"] == __version__


def test_evaluate_repeats_the_report(ring_run):
    before = (ring_run / "report.json").read_text()
    (ring_run / "report.json").unlink()
    assert run("evaluate", ring_run) == 0
    assert (ring_run / "report.json").read_text() == before


def test_sample_and_score(ring_run, tmp_path, capsys):
    for refine in ((), ("--refine",)):
        assert run("sample", ring_run, "-n", 7, *refine) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "x1,x2" and len(lines) == 8
    for suffix in ("npy", "csv", "png"):
        assert run("sample", ring_run, "-n", 50, "--seed", 3, "--out", tmp_path / f"points.{suffix}") == 0
    points = np.load(tmp_path / "points.npy")
    assert points.shape == (50, 2)
    np.testing.assert_allclose(
        np.loadtxt(tmp_path / "points.csv", delimiter=",", skiprows=1), points, rtol=1e-14
    )
    assert (tmp_path / "points.png").read_bytes().startswith(b"\x89PNG")

    assert run("score", ring_run, tmp_path / "points.npy") == 0
    header, *scores = capsys.readouterr().out.splitlines()
    expected = load(ring_run).log_prob(torch.from_numpy(points)).detach().numpy()
    assert header == "log_density"
    np.testing.assert_allclose([float(score) for score in scores], expected, rtol=1e-6)
    assert run("score", ring_run, tmp_path / "points.csv", "--out", tmp_path / "scores.csv") == 0
    np.testing.assert_allclose(np.loadtxt(tmp_path / "scores.csv", skiprows=1), expected, rtol=1e-5)


def write_rows(path, rows):
    if path.suffix == ".npy":
        np.save(path, rows)
    else:
        np.savetxt(path, rows, delimiter=",", header="a,b", comments="")


@pytest.mark.parametrize("name", ["rows.csv", "rows.npy"])
def test_a_users_own_file_trains_evaluates_and_scores(tmp_path, capsys, name):
    rows = np.random.default_rng(0).normal([5, -300], [0.1, 40], (500, 2))
    write_rows(tmp_path / name, rows)
    assert run("train", tmp_path / name, "--steps", 3, "--out", tmp_path / "run") == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["modes"] is None and np.isfinite(report["held_out_nll"])
    assert run("evaluate", tmp_path / "run") == 0
    assert run("score", tmp_path / "run", tmp_path / name, "--out", tmp_path / "scores.npy") == 0
    assert np.isfinite(np.load(tmp_path / "scores.npy")).all()
    write_rows(tmp_path / name, rows + 1)
    assert run("evaluate", tmp_path / "run") == 2
    assert "is not the data" in capsys.readouterr().err


def test_points_stay_points_without_the_rows_in_which_values_are_missing(tmp_path, capsys):
    rows = np.random.default_rng(0).normal(size=(500, 2))
    write_rows(tmp_path / "rows.csv", rows)
    with (tmp_path / "rows.csv").open("a") as file:
        file.write(",1.5\n")
    train = ["train", tmp_path / "rows.csv", "--steps", 3, "--out", tmp_path / "run"]
    assert run(*train, "--drop-missing") == 0
    assert json.loads((tmp_path / "run" / "report.json").read_text())["kind"] == "points"
    assert "left out 1 of 501 rows with missing values" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options", [["{table}", "--ignore", "label"], ["ring", "--objective", "gan"]], ids=["table", "gan"]
)
def test_integral_samples_are_refused_where_there_is_no_integral(tmp_path, refuse, options):
    rows = np.random.default_rng(0).normal(size=(300, 3))
    lines = ["a,b,c,label", *(f"{a},{b},{c},x" for a, b, c in rows)]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    options = [option.format(table=tmp_path / "rows.csv") for option in options]
    said = refuse("train", *options, "--integral-samples", 8, "--out", tmp_path / "run")
    assert "--integral-samples: training on" in said and not (tmp_path / "run").exists()


def test_minutes_become_steps_once(tmp_path):
    assert run("train", "ring", "--minutes", 0.0005, "--out", tmp_path / "run") == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["minutes"] == 0.0005 and 0 < config["steps"] < 50


def test_resume_of_a_finished_run_changes_nothing(ring_run, capsys):
    before = contents(ring_run)
    assert run("train", "ring", "--resume", "--out", ring_run) == 0
    assert "is finished: 4 steps" in capsys.readouterr().out
    assert contents(ring_run) == before


@pytest.mark.parametrize(
    "options, message",
    [
        (
            ["rings", "--out", "{new}"],
            "rings: want ring, grid, a .csv, .csv.gz, .tsv, .tsv.gz, .parquet, .npy file, or ",
        ),
        (["missing.npy", "--out", "{new}"], "missing.npy: no such file"),
        (
            ["ring", "--out", "{new}", "--preset", "fast"],
            "--preset: want for points in the plane default, inflated, ",
        ),
        (["ring", "--out", "{new}", "--steps", "0"], "--steps: want a positive number, got 0"),
        (["ring", "--out", "{new}", "--minutes", "-1"], "--minutes: want a positive number"),
        (["ring", "--out", "{new}", "--minutes", "nan"], "--minutes: want a positive number, got nan"),
        (["ring", "--out", "{new}", "--minutes", "inf"], "--minutes: want a positive number, got inf"),
        (["ring", "--out", "{new}", "--seed", str(2**64)], "--seed: want a number from 0 to"),
        (["ring", "--out", "{new}", "--seed", "-1"], "--seed: want a number from 0 to"),
        (["ring", "--out", "{new}", "--steps", "1", "--minutes", "1"], "--steps and --minutes: give one"),
        (
            ["ring", "--out", "{new}", "--strict"],
            "--strict: is for images, and these are points",
        ),
        (["ring", "--out", "{run}"], "is not empty"),
        (["ring", "--out", "{file}"], "cannot be used as a folder"),
        (["ring", "--out", "{file}/below"], "cannot be used as a folder"),
        (["ring", "--out", "{new}", "--resume"], "is not a run"),
        (["grid", "--out", "{run}", "--resume"], "grid: is not the data, ring, that the run was begun with"),
        (["ring", "--out", "{run}", "--resume", "--seed", "2"], "was started with seed 1, not 2"),
        (["ring", "--out", "{run}", "--resume", "--preset", "paper"], "preset default, not paper"),
        (["ring", "--out", "{run}", "--resume", "--steps", "3"], "has 4, which may become more, not 3"),
        (["ring", "--out", "{run}", "--resume", "--ops", "reference"], "ops fast, not reference"),
        (
            ["ring", "--out", "{run}", "--resume", "--strict"],
            "--strict: is for images, and these are points",
        ),
        (["ring", "--out", "{run}", "--resume", "--data", "x"], "x: want ring, grid"),
        (
            ["ring", "--preset", "mnist32", "--out", "{run}", "--resume"],
            "was started with preset default, not mnist32",
        ),
    ],
)
def test_train_refuses(ring_run, tmp_path, refuse, options, message):
    (tmp_path / "file").write_text("kept")
    places = {"new": tmp_path / "new", "run": ring_run, "file": tmp_path / "file"}
    before = contents(ring_run)
    assert message in refuse("train", *[option.format(**places) for option in options])
    assert contents(ring_run) == before and (tmp_path / "file").read_text() == "kept"


def change_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def unfinished(ring_run, folder):
    folder.mkdir()
    for name in ("config.json", "checkpoint.safetensors", "metrics.jsonl"):
        (folder / name).write_bytes((ring_run / name).read_bytes())
    return folder


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-1000]), "truncated"),
        (lambda file: file.write_bytes(b"not ours"), "truncated or not a safetensors file"),
        (lambda file: file.write_bytes((file.parent / "model").read_bytes()), "got a model"),
        (lambda file: change_json(file.with_name("config.json"), seed=9), "another config"),
    ],
)
def test_resume_refuses_a_damaged_checkpoint(ring_run, tmp_path, refuse, damage, message):
    folder = unfinished(ring_run, tmp_path / "run")
    (folder / "model").write_bytes((ring_run / "model.safetensors").read_bytes())
    damage(folder / "checkpoint.safetensors")
    before = contents(folder)
    error = refuse("train", "ring", "--out", folder, "--resume")
    assert "checkpoint.safetensors" in error and message in error
    assert contents(folder) == before


def test_a_run_goes_on_with_steps_recorded_or_not(ring_run, tmp_path):
    folder = unfinished(ring_run, tmp_path / "run")
    assert run("train", "ring", "--out", folder, "--resume", "--cuda-graph", "off") == 0
    assert (folder / "model.safetensors").is_file()


@pytest.mark.parametrize(
    "text, message", [("{", "not valid JSON"), ("[]", "want a JSON object"), ("{}", "missing required field")]
)
def test_resume_refuses_a_damaged_config(ring_run, tmp_path, refuse, text, message):
    folder = unfinished(ring_run, tmp_path / "run")
    (folder / "config.json").write_text(text)
    assert message in refuse("train", "ring", "--out", folder, "--resume")


def test_other_commands_refuse(ring_run, tmp_path, refuse):
    np.save(tmp_path / "bad.npy", [[0.0, 1.0], [np.nan, 2.0]])
    (tmp_path / "there.csv").write_text("kept")
    folder = unfinished(ring_run, tmp_path / "run")
    assert (message := refuse("score", ring_run, tmp_path / "bad.npy")).endswith(
        "bad.npy: column 'x1', row 2: the value is missing, as in 1 of 2 rows\n"
    ), message  # and no advice that is only for training
    np.save(tmp_path / "bad.npy", [[0.0, 1.0], [0.0, np.inf]])
    assert "bad.npy: column 'x2', row 2: inf is not finite" in refuse("score", ring_run, tmp_path / "bad.npy")
    np.save(tmp_path / "far.npy", [[0.0, 1.0], [1e300, 2.0]])
    assert "far.npy: row 2 is too far" in refuse("score", ring_run, tmp_path / "far.npy")
    assert "no such file" in refuse("score", ring_run, tmp_path / "none.csv")
    assert "suffix '.txt'" in refuse("score", ring_run, tmp_path / "a.txt")
    assert "is not a run" in refuse("evaluate", tmp_path)
    for command in (["evaluate"], ["sample"]):
        assert "is not finished" in refuse(*command, folder)
    assert "exists already" in refuse("sample", ring_run, "--out", tmp_path / "there.csv")
    assert "want a file that ends in" in refuse("sample", ring_run, "--out", tmp_path / "x.txt")
    assert "-n: want a positive number, got 0" in refuse("sample", ring_run, "-n", 0)
    assert "--seed: want" in refuse("sample", ring_run, "--seed", 2**64)
    (folder / "model.safetensors").write_bytes((ring_run / "model.safetensors").read_bytes()[:500])
    assert "model.safetensors: truncated" in refuse("sample", folder)
    assert (tmp_path / "there.csv").read_text() == "kept"


def widen_generator(config):
    model = config["model"]
    return config | {"model": model | {"generator": model["generator"] | {"features": 4}}}


def test_commands_for_images_refuse_a_run_on_points(ring_run, tmp_path, refuse):
    for command in ("interpolate", "refine"):
        wanted = f"{command}: is for images, and these are points in the plane"
        assert wanted in refuse(command, ring_run, "--out", tmp_path / "x.png")
    for option, value in (("--features", "classifier"), ("--ood", tmp_path), ("--samples", 200)):
        assert f"{option}: is for images" in refuse("evaluate", ring_run, option, value)


def test_version(capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out == f"led-fast {__version__}\n"


def test_score_refuses_a_run_without_log_normalizer(ring_run, tmp_path, refuse):
    folder = tmp_path / "run"
    shutil.copytree(ring_run, folder)
    state = load_state(folder / "model.safetensors", "model")
    state["model"]["log_normalizer"].fill_(float("nan"))
    save_state(folder / "model.safetensors", "model", state)
    write_rows(tmp_path / "points.csv", torch.zeros(3, 2))
    assert "log α could not be estimated" in refuse("score", folder, tmp_path / "points.csv")


def test_points_of_a_doubtful_log_normalizer_are_said_to_be(ring_run, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(ring_run, folder)
    state = load_state(folder / "model.safetensors", "model")
    verdict = load(folder).verdict
    assert verdict.evidence.keys() == {"quadrature"}
    text = json.dumps(verdict.to_json() | {"reliable": False, "reason": "it did not converge"})
    state["model"]["_extra_state"] = torch.tensor(list(text.encode()), dtype=torch.uint8)
    save_state(folder / "model.safetensors", "model", state)
    write_rows(tmp_path / "points.csv", torch.zeros(3, 2))
    for doubtful, *command in (
        (True, "score", folder, tmp_path / "points.csv"),
        (True, "sample", folder, "-n", 5, "--refine"),
        (True, "sample", folder, "-n", 5, "--out", tmp_path / "a.png"),
        (False, "sample", folder, "-n", 5),
    ):
        assert run(*command) == 0
        said = "led-fast: UNRELIABLE log α, by which all densities may be off: it did not converge\n"
        assert capsys.readouterr().err == (said if doubtful else "")


def rewrite_config(path, kind, change):
    state = load_state(path, kind)
    save_state(path, kind, state | {"config": change(state["config"])})


def test_weights_of_other_networks_are_refused(ring_run, tmp_path, refuse):
    folder = unfinished(ring_run, tmp_path / "run")
    (folder / "model.safetensors").write_bytes((ring_run / "model.safetensors").read_bytes())
    rewrite_config(folder / "model.safetensors", "model", widen_generator)
    assert "model.safetensors: does not fit" in refuse("evaluate", folder)
    (folder / "model.safetensors").unlink()
    rewrite_config(folder / "checkpoint.safetensors", "checkpoint", widen_generator)
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(widen_generator(content)))
    assert "checkpoint.safetensors: does not fit" in refuse("train", "ring", "--out", folder, "--resume")


def test_divergence_exits_with_1(tmp_path, monkeypatch, capsys):
    def diverge(_):
        raise DivergenceError("the critic's loss is nan")

    monkeypatch.setattr(Trainer, "step", diverge)
    assert run("train", "ring", "--out", tmp_path / "run") == 1
    message = capsys.readouterr().err
    assert message.startswith("led-fast: training diverged at step 1: the critic's loss is nan; there is no")


def test_an_unknown_command_or_option_exits_with_2():
    for arguments in (["fly"], ["train", "ring", "--out", "x", "--speed", "9"], []):
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        assert exit_.value.code == 2
