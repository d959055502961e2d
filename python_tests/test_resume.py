"""Real processes, really killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from states import same_state

from led_fast.training.checkpoint import load_state
from led_fast.training.run import RunDirectory

STEPS = 80


# `led-fast`, but without the report, which takes longer than these runs.
PROGRAM = f"""
import sys
sys.path.append({str(Path(__file__).parent)!r})
import coarse
import led_fast.cli.train
coarse.coarsen()
led_fast.cli.train.write_report = lambda *_: None
sys.exit(led_fast.cli.main(sys.argv[1:]))
"""


def command(target, out, *options):
    train = [
        sys.executable,
        "-c",
        PROGRAM,
        "train",
        *target,
        "--steps",
        str(STEPS),
        "--out",
        str(out),
        *options,
    ]
    # In a folder of its own: Python would import led_fast from the current one.
    return subprocess.Popen(train, cwd=out.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


def interrupt_after_first_checkpoint(process, run, number):
    deadline = time.monotonic() + 120
    while not run.checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=60)
    return errors


COMPILED = ("--compile", "on")
KILLED, STOPPED = (signal.SIGKILL, -9), (signal.SIGINT, 130)


@pytest.fixture(scope="module")
def target(request, tmp_path_factory):
    kind, options = request.param
    if kind == "points":
        return ["ring", *options]
    file = tmp_path_factory.mktemp("data") / "noise.npy"
    np.save(file, np.random.default_rng(0).integers(0, 256, (200, 8, 8), dtype=np.uint8))
    return [str(file), "--preset", "tiny", *options]


@pytest.fixture(scope="module")
def uninterrupted(target, tmp_path_factory):
    run = RunDirectory(tmp_path_factory.mktemp("runs") / "whole")
    finish(command(target, run.path))
    return load_state(run.model, "model")["model"]


@pytest.mark.parametrize(
    "target, number, code",
    [
        (("points", ()), *KILLED),
        (("points", ()), *STOPPED),
        (("points", COMPILED), *KILLED),
        pytest.param(("points", COMPILED), *STOPPED, marks=pytest.mark.slow),
        (("images", ()), *KILLED),
        (("images", ()), *STOPPED),
        pytest.param(("images", COMPILED), *KILLED, marks=pytest.mark.slow),
        pytest.param(("images", COMPILED), *STOPPED, marks=pytest.mark.slow),
    ],
    indirect=["target"],
    ids=str,
)
def test_a_killed_run_resumes_bit_for_bit(target, tmp_path, uninterrupted, number, code):
    run = RunDirectory(tmp_path / "cut")
    process = command(target, run.path)
    errors = interrupt_after_first_checkpoint(process, run, number)
    assert process.returncode == code and not run.model.exists()
    if number == signal.SIGINT:
        *of_torch, last = errors.splitlines()
        assert last.startswith("led-fast: stopped after step ")
        assert not of_torch or "--compile" in target  # a compiler may have remarks of its own
    done = load_state(run.checkpoint, "checkpoint")["trainer"]["steps_done"]
    assert 0 < done < STEPS
    finish(command(target, run.path, "--resume"))
    resumed = load_state(run.model, "model")["model"]
    assert same_state(resumed, uninterrupted)
