"""torchrun on a machine with the fake GPU: each task's processes talk by the backend of its own device."""

import multiprocessing
import os
import sys
import traceback

import fake_gpu
import numpy as np
import pytest
import torch
import torch.distributed as dist
from coarse import coarsen
from fake_gpu import collectives
from fake_gpu.small import blobs
from processes import join_all
from test_training_distributed import environment, free_port

import led_fast.cli.train
from led_fast.cli import main
from led_fast.errors import InputError
from led_fast.kinds.images import task
from led_fast.training import World, join_world
from led_fast.training.checkpoint import load_state
from led_fast.training.run import RunDirectory

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["led_fast.cli", "torch._dynamo"])


@pytest.fixture
def group():
    """A group of one process, of the device's backend."""
    collectives.register()
    dist.init_process_group(collectives.NAME, store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_a_call_that_is_wrong_is_not_a_process_that_died(group):
    alone = World(0, 2, "cpu")  # which talks of the CPU's tensors to a backend of the device's
    for call in (lambda: alone.gather(torch.ones(2)), lambda: alone.agree(1.0)):
        with pytest.raises(RuntimeError, match="No backend type associated with device type cpu") as error:
            call()
        assert type(error.value) is RuntimeError


def test_what_processes_agree_on_is_on_their_device(group):
    assert World(0, 2, fake_gpu.NAME).agree(3.0) == 3.0


def test_every_process_wants_a_gpu_of_its_own(monkeypatch):
    for name, value in environment(1, free_port()).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="this machine, which has 1 GPUs"), join_world(fake_gpu.NAME):
        pass


def _train(rank, port, arguments, errors):
    fake_gpu.register()
    collectives.register()
    os.environ.update({**environment(rank, port), "LOCAL_RANK": "0"})  # both on the only GPU
    torch.set_num_threads(1)
    coarsen()
    task._STANDARDIZED_BY = 100
    led_fast.cli.train.write_report = lambda *_: None
    with errors.open("w") as sys.stderr, open(os.devnull, "w") as sys.stdout:
        try:
            code = main(arguments)
        except Exception:
            traceback.print_exc()
            raise
    sys.exit(code)


@pytest.mark.parametrize("target, backend", [("ring", "gloo"), ("images.npy", collectives.NAME)])
def test_two_processes_train_points_by_gloo_and_images_by_the_devices_backend(target, backend, tmp_path):
    np.save(tmp_path / "images.npy", blobs((1, 8, 8), 120)[:, 0].numpy())
    options = ["--steps", "4"] + (["--preset", "tiny"] if target == "images.npy" else [])
    port, processes = free_port(), []
    errors = [tmp_path / f"errors-{rank}.txt" for rank in range(2)]
    for rank in range(2):
        place = "ring" if target == "ring" else str(tmp_path / target)
        arguments = ["train", place, "--out", str(tmp_path / "run"), *options]
        processes.append(PROCESSES.Process(target=_train, args=(rank, port, arguments, errors[rank])))
        processes[-1].start()
    assert join_all(processes) == [0, 0], [path.read_text() for path in errors]
    states = load_state(RunDirectory(tmp_path / "run").checkpoint, "checkpoint")["trainer"]["random"]
    kinds = {"cpu"} if backend == "gloo" else {"cpu", fake_gpu.NAME}
    assert [set(state) for state in states] == [kinds, kinds]
