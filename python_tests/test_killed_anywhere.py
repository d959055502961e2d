"""Runs of each kind, killed at random moments and gone on with: not one weight differs, and none is lost."""

import contextlib
import multiprocessing
import os
import random
import sys
import time

import numpy as np
import pytest
import torch
from coarse import coarsen, shrink_tables
from processes import join_all
from states import same_state

import led_fast.cli.train
import led_fast.training.session
from led_fast.cli import main
from led_fast.training.checkpoint import load_state
from led_fast.training.run import RunDirectory, read_metrics

PROCESSES = multiprocessing.get_context("forkserver")  # imports once, for all that it starts
PROCESSES.set_forkserver_preload(["led_fast.cli", "torch._dynamo", "tensorboard"])
KILLS = 50
STEPS = {"points": 40, "tables": 60, "images": 40}


def work(arguments, errors):
    torch.set_num_threads(1)
    led_fast.training.session.CHECKPOINT_EVERY = 3
    coarsen()
    shrink_tables()
    led_fast.cli.train.write_report = lambda *_: None  # takes longer than these runs
    with errors.open("w") as sys.stderr, open(os.devnull, "w") as sys.stdout:
        sys.exit(main(arguments))


def start(place, run):
    resume = ["--resume"] if run.config.exists() else ["--steps", str(STEPS[place.stem])]
    arguments = ["train", str(place if place.suffix else "ring"), "--out", str(run.path), *resume]
    if place.stem == "images" and "--resume" not in resume:
        arguments += ["--preset", "tiny"]
    process = PROCESSES.Process(target=work, args=(arguments, run.path.parent / "errors.txt"))
    process.start()
    return process


def finish(place, run):
    process = start(place, run)
    assert join_all([process]) == [0], (run.path.parent / "errors.txt").read_text()
    return load_state(run.model, "model")["model"]


@pytest.fixture
def place(request, tmp_path):
    rng = np.random.default_rng(0)
    if request.param == "images":
        np.save(tmp_path / "images.npy", rng.integers(0, 256, (200, 8, 8), dtype=np.uint8))
        return tmp_path / "images.npy"
    if request.param == "tables":
        rows = np.column_stack([rng.gamma(3, 2, 300), rng.normal(size=300), rng.poisson(3, 300)])
        np.savetxt(tmp_path / "tables.csv", rows, delimiter=",", header="a,b,c", comments="")
        return tmp_path / "tables.csv"
    return tmp_path / "points"


@pytest.mark.slow
@pytest.mark.parametrize("place", STEPS, indirect=True)
def test_a_run_that_is_killed_at_random_moments_ends_as_any_other(place, tmp_path):
    finish(place, RunDirectory(tmp_path / "first"))  # whatever is slow once
    began = time.monotonic()
    wanted = finish(place, RunDirectory(tmp_path / "whole"))
    takes, runs, moments = time.monotonic() - began, 1, random.Random(0)
    run = RunDirectory(tmp_path / "run-1")
    seen, rows = set(), None
    for _ in range(KILLS):
        process = start(place, run)
        process.join(timeout=moments.uniform(0, takes))
        process.kill()
        process.join()
        assert process.exitcode in (0, -9), (tmp_path / "errors.txt").read_text()
        with contextlib.suppress(ValueError):
            seen.add(load_state(run.checkpoint, "checkpoint")["trainer"]["steps_done"])
        if process.exitcode == 0:
            assert same_state(load_state(run.model, "model")["model"], wanted)
            runs += 1
            run = RunDirectory(tmp_path / f"run-{runs}")
    assert same_state(finish(place, run), wanted)
    assert len(seen) > 5  # it was killed at many moments
    rows = [[row["step"] for row in read_metrics(r.metrics)] for r in (run, RunDirectory(tmp_path / "whole"))]
    assert rows[0] == rows[1]
