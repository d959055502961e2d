"""Runs that go on in other circumstances, or for longer, than they were begun for."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from coarse import coarsen, shrink_tables
from command_line import run as led_fast_command
from states import same_state

import led_fast
import led_fast.cli.train
import led_fast.training.session
from led_fast.training import Trainer
from led_fast.training.checkpoint import load_state, save_state
from led_fast.training.circumstances import circumstances, differences
from led_fast.training.run import RunDirectory, read_metrics


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    coarsen(monkeypatch.setattr)
    shrink_tables(monkeypatch.setattr)
    monkeypatch.setattr(led_fast.cli.train, "write_report", lambda *_: None)
    monkeypatch.setattr(led_fast.training.session, "CHECKPOINT_EVERY", 5)


@pytest.fixture(params=["points", "tables", "images"])
def target(request, tmp_path):
    rng = np.random.default_rng(0)
    if request.param == "points":
        return ["ring"]
    if request.param == "images":
        np.save(tmp_path / "images.npy", rng.integers(0, 256, (200, 8, 8), dtype=np.uint8))
        return [tmp_path / "images.npy", "--preset", "tiny"]
    rows = np.column_stack([rng.gamma(3, 2, 300), rng.normal(size=300), rng.poisson(3, 300)])
    np.savetxt(tmp_path / "tables.csv", rows, delimiter=",", header="a,b,c", comments="")
    return [tmp_path / "tables.csv"]


def begun(target, out, steps=20):
    assert led_fast_command("train", *target, "--steps", steps, "--out", out) == 0
    return RunDirectory(out)


def weights(run):
    return load_state(run.model, "model")["model"]


def test_a_finished_run_goes_on_for_more_steps(target, tmp_path, capsys, monkeypatch):
    run = begun(target, tmp_path / "run")
    finished, cut = weights(run), RunDirectory(Path(shutil.copytree(run.path, tmp_path / "cut")))
    again = ("train", *target, "--resume", "--steps", 40, "--out")
    assert led_fast_command(*again, run.path) == 0
    assert "20 steps are done; the schedules go on as in a run of 40" in capsys.readouterr().out
    assert json.loads(run.config.read_text())["steps"] == 40
    assert load_state(run.checkpoint, "checkpoint")["trainer"]["steps_done"] == 40
    assert not same_state(weights(run), finished)
    step = Trainer.step

    def killed(trainer):
        if trainer.steps_done == 33:
            raise MemoryError
        return step(trainer)

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(Trainer, "step", killed)
        led_fast_command(*again, cut.path)
    assert same_state(weights(cut), finished)  # which is not lost meanwhile
    assert led_fast_command("train", *target, "--resume", "--out", cut.path) == 0
    assert same_state(weights(cut), weights(run))
    rows = read_metrics(run.metrics)
    assert [row["step"] for row in rows] == [10, 20, 30, 40]
    if target != ["ring"]:  # what had ended learns on, in the order of a longer run
        assert "critic_loss" in rows[1] and "generator_nll" not in rows[1]
        assert "generator_nll" in rows[2] or "critic_loss" in rows[2]


def test_a_longer_run_goes_through_its_stages_anew(tmp_path):
    rng = np.random.default_rng(0)
    np.savetxt(tmp_path / "t.csv", rng.normal(size=(300, 3)) ** 3, delimiter=",", header="a,b,c", comments="")
    run = begun([tmp_path / "t.csv"], tmp_path / "run", 10)
    assert led_fast_command("train", tmp_path / "t.csv", "--resume", "--steps", 100, "--out", run.path) == 0
    named = [set(row) - {"step", "validation"} for row in read_metrics(run.metrics)]
    assert named[0] == {"critic_loss", "ess_fraction"} and named[1] == {"generator_nll"}
    assert named[-1] == {"critic_loss", "ess_fraction"}


def test_fewer_steps_are_refused(tmp_path, refuse):
    run = tmp_path / "run"
    shutil.copytree(Path(__file__).parent / "data" / "runs_0_1_0" / "ring", run)
    steps = json.loads((run / "config.json").read_text())["steps"]
    assert f"has {steps}, which may become more, not 1" in refuse(
        "train", "ring", "--resume", "--steps", 1, "--out", run
    )


def test_other_circumstances_are_told_before_the_run_goes_on(tmp_path, capsys):
    run, threads = begun(["ring"], tmp_path / "run"), torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assert led_fast_command("train", "ring", "--resume", "--steps", 21, "--out", run.path) == 0
    finally:
        torch.set_num_threads(threads)
    said = capsys.readouterr().out
    assert (
        f"was begun with number of threads {threads}, now {threads + 1}; so it goes on to weights that differ"
        in said
    )
    assert said.index("was begun") < said.index("step 21/21")
    assert led_fast_command("train", "ring", "--resume", "--steps", 22, "--out", run.path) == 0
    assert f"threads {threads + 1}, now {threads}" in capsys.readouterr().out
    assert led_fast_command("train", "ring", "--resume", "--steps", 23, "--out", run.path) == 0
    assert "was begun" not in capsys.readouterr().out


def test_every_circumstance_is_compared():
    here = circumstances()
    assert differences([here, here], [here, here]) == ""
    for name in here:
        assert f"{name} old, now {here[name]}" in differences([here, {**here, name: "old"}], [here, here])
    assert "did not note" in differences(None, [here])
    assert {"led_fast", "torch", "machine", "number of threads", "instruction set"} <= set(here)


@pytest.mark.parametrize("damage", ["critic", "critic_optimizer", "random", "calibration_ess"])
def test_a_checkpoint_of_another_version_is_refused_in_a_sentence(damage, tmp_path, request):
    run = begun(["ring"], tmp_path / "run", 5)
    state = load_state(run.checkpoint, "checkpoint")
    if damage == "critic":
        state["trainer"]["critic"]["another"] = torch.zeros(3)
    else:
        del state["trainer"][damage]
    save_state(run.checkpoint, "checkpoint", state)
    refuse = request.getfixturevalue("refuse")  # from now on, no step is taken
    said = refuse("train", "ring", "--resume", "--steps", 6, "--out", run.path)
    assert "checkpoint.safetensors: does not fit" in said
