"""Training, scoring and sampling in somebody's process: its threads, forks, defaults and process groups."""

import signal
import subprocess
import sys
import threading
import warnings
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from coarse import coarsen, shrink_tables
from command_line import run as led_fast_command
from processes import join_all
from states import same_state
from test_training_distributed import PROCESSES
from torch.nn.parallel import DistributedDataParallel

import led_fast.cli.train
from led_fast import LED, flows
from led_fast.random_state import seeded
from led_fast.training import join_world
from led_fast.training.checkpoint import load_state
from led_fast.training.run import RunDirectory

ROWS = np.random.default_rng(0).normal(size=(200, 2)) ** 3


@contextmanager
def default_dtype(dtype):
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    coarsen(monkeypatch.setattr)
    shrink_tables(monkeypatch.setattr)
    monkeypatch.setattr(led_fast.cli.train, "write_report", lambda *_: None)


def trained(out):
    assert led_fast_command("train", "ring", "--steps", "4", "--out", out) == 0
    return load_state(RunDirectory(out).model, "model")["model"]


def used():
    """What an estimator says: it has learned, drawn and scored."""
    density = LED(steps=20, random_state=0).fit(ROWS)
    return (
        dict(density.model_.state_dict()),
        density.score_samples(ROWS[:9]),
        density.sample(5, random_state=0),
    )


def assert_same(found, wanted):
    assert same_state(found[0], wanted[0])
    np.testing.assert_array_equal(found[1], wanted[1])
    np.testing.assert_array_equal(found[2], wanted[2])


SURROUNDINGS = {
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "device": lambda: torch.device("meta"),
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
}


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_defaults_of_a_program_change_nothing(name, tmp_path):
    wanted, run = used(), trained(tmp_path / "plain")
    with SURROUNDINGS[name]():
        before = torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled()
        found, again = used(), trained(tmp_path / "run")
        assert (torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled()) == before
    assert_same(found, wanted)
    assert same_state(again, run)


def test_another_thread_trains_without_handlers(tmp_path):
    found, handler = [], signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=lambda: found.append(trained(tmp_path / "thread")))
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) is handler
    assert same_state(found[0], trained(tmp_path / "plain"))


def test_threads_that_draw_at_once_are_told():
    def draw():
        with seeded(1):
            torch.rand(3)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw()
        with seeded(0), seeded(1):
            draw()
        thread = threading.Thread(target=draw)
        thread.start()
        thread.join()
    with seeded(0), pytest.warns(UserWarning, match="two threads draw torch's random numbers at a time"):
        thread = threading.Thread(target=draw)
        thread.start()
        thread.join()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw()


FORKED = """
import os, signal, sys
import numpy as np, torch
from led_fast import LED
torch.set_num_threads(2)
torch.randn(4_000_000).exp().sum(), torch.randn(500, 500) @ torch.randn(500, 500)  # OpenMP has threads now
child = os.fork()
if not child:
    signal.alarm(250)  # or it would keep the pipes open after its parent was killed
    rows = np.random.default_rng(0).normal(size=(200, 2))
    LED(steps=2, random_state=0).fit(rows).score(rows)
    os._exit(7)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_process_forked_after_openmp_was_used_does_not_wait_forever():
    done = subprocess.run(
        [sys.executable, "-c", FORKED], cwd=Path(__file__).parent, timeout=300, capture_output=True
    )
    assert done.returncode == 7, done.stderr.decode()
    assert b"computes by one thread in a forked process" in done.stderr


def _in_a_group(rank, folder):
    torch.set_num_threads(1)
    # By a file, because another program may take a port first; by default it waits half an hour.
    where, limit = f"file://{folder / 'store'}", timedelta(seconds=120)
    dist.init_process_group("gloo", where, rank=rank, world_size=2, timeout=limit)
    torch.manual_seed(rank)
    x = torch.randn(8, 3) * (rank + 1)
    with join_world() as world:
        said = [f"{world.rank} of {world.size}"]
    flow = flows.ActNorm(3)
    try:
        DistributedDataParallel(flow)(x)
    except RuntimeError as error:
        said.append(str(error))
    flow(x)
    wrapped = DistributedDataParallel(flow)
    wrapped(x)[0].sum().backward()
    said += [flow.mean.tolist(), flow.log_scale.tolist()]
    torch.save(said, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_a_program_keeps_its_own_process_group(tmp_path):
    started = [PROCESSES.Process(target=_in_a_group, args=(rank, tmp_path)) for rank in range(2)]
    for process in started:
        process.start()
    assert join_all(started, seconds=180) == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert [first[0], second[0]] == ["0 of 2", "1 of 2"]
    assert "let a batch pass through the flow" in first[1] and first[1] == second[1]
    assert first[2:] == second[2:] and any(first[2])
