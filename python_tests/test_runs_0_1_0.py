"""Runs that version 0.1.0 made: they load, say the same, and go on to the same weights."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import run as led_fast_command
from safetensors.torch import load_file

import led_fast
from led_fast.training import RunDirectory, Trainer, load_model

RUNS = Path(__file__).parent / "data" / "runs_0_1_0"
EXPECTED = json.loads((RUNS / "expected.json").read_text())
COMMANDS = {
    "points_stopped": [str(RUNS / "points.csv")],
    "images_stopped": ["tiny", "--data", str(RUNS / "images.npz")],
}
# Not bit for bit: operators sum in another order since, as other processors do, and ten steps carry that on.
SUMMED_OTHERWISE = 1e-6
# The critic's last bias moves by rounding alone, which Adam makes large: log α takes up what it adds to every point.
BIASES = {"points_stopped": "critic.critic.net.net.5.bias", "images_stopped": "critic.net.net.2.bias"}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_finished_run_loads_and_says_the_same(name):
    expected = EXPECTED[name]
    model, x = led_fast.load(RUNS / name), points_of(name)
    assert expected["critic"] and ("log_prob" in expected) == ("gan" not in name)
    with torch.no_grad():
        close(model.critic(x), expected["critic"])
        if "log_prob" in expected:
            close(model.log_prob(x), expected["log_prob"])
        close(model.generator.double().log_prob(x.double()), expected["generator_log_prob"])


@pytest.mark.parametrize("name", COMMANDS)
def test_a_stopped_run_goes_on_to_the_same_weights(name, tmp_path, monkeypatch):
    steps, step = [], Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda trainer: steps.append(1) or step(trainer))
    monkeypatch.setattr("led_fast.cli.train.write_report", lambda *_: None)
    run = RunDirectory(Path(shutil.copytree(RUNS / name, tmp_path / "run")))
    assert led_fast_command("train", *COMMANDS[name], "--out", str(run.path), "--resume") == 0
    assert len(steps) == 10
    ended, found = load_file(RUNS / f"{name}.end.safetensors"), load_model(run).model.state_dict()
    bias = BIASES[name]
    networks = [key for key in ended if key.startswith(("critic.", "generator.")) and key != bias]
    assert len(networks) > 10
    for key in networks:
        torch.testing.assert_close(found[key], ended[key], rtol=0, atol=SUMMED_OTHERWISE, msg=named(key))
    added = found[bias] - found["log_normalizer"]
    torch.testing.assert_close(added, ended[bias] - ended["log_normalizer"], rtol=0, atol=1e-5)


def test_score_takes_a_run(tmp_path):
    run = Path(shutil.copytree(RUNS / "ring", tmp_path / "ring"))
    assert (
        led_fast_command("score", str(run), str(RUNS / "points.csv"), "--out", str(tmp_path / "s.csv")) == 0
    )
    assert len((tmp_path / "s.csv").read_text().splitlines()) == 121


def points_of(name):
    if EXPECTED[name]["x"] is not None:
        return torch.tensor(EXPECTED[name]["x"], dtype=torch.float64)
    images = torch.from_numpy(np.load(RUNS / "images.npz")["images"][:6])
    return (images.float()[:, None] + 0.5) / 256


def named(key):
    return lambda message: f"{key}: {message}"


def close(found, expected):
    torch.testing.assert_close(found.double(), torch.tensor(expected).double(), rtol=1e-5, atol=1e-4)
