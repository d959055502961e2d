"""Training on the fake GPU: every family of networks, every stage, and runs that are cut and go on."""

import os
import signal

import fake_gpu
import numpy as np
import pytest
import torch
from coarse import coarsen
from fake_gpu.small import config_of, go_to, source_of
from rich.console import Console

from led_fast.data import open_source
from led_fast.kinds.images import task
from led_fast.kinds.points import PRESETS
from led_fast.models import IMAGE_PRESETS
from led_fast.training import Interrupted, RunDirectory, TrainConfig, Trainer, train
from led_fast.training.checkpoint import load_state

QUIET = Console(quiet=True)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    coarsen(monkeypatch.setattr)
    monkeypatch.setattr(task, "_STANDARDIZED_BY", 100)


def _wide(presets, quick):
    return [p if p in quick else pytest.param(p, marks=pytest.mark.slow) for p in presets]


@pytest.mark.parametrize("preset", _wide(IMAGE_PRESETS, ["tiny", "paper_mnist32"]))
def test_every_stage_trains_there(preset):
    source = source_of(preset)
    few = {"recipe.batches.integrals": 2, "recipe.batches.integral_samples": 2}
    trainer = Trainer(config_of(preset, source, changes=few), source)
    assert trainer.task.device.type == fake_gpu.NAME
    with fake_gpu.Count() as count:
        for stage in trainer.recipe.stages:
            go_to(trainer, stage.name)
            metrics = trainer.step()
            assert metrics and all(np.isfinite(value) for value in metrics.values())
    assert count.launches > 100
    devices = {t.device.type for name, part in trainer._parts() for t in _tensors(part.state_dict())}
    assert devices == {fake_gpu.NAME}


def _tensors(state):
    values = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return [state] if isinstance(state, torch.Tensor) else [t for value in values for t in _tensors(value)]


@pytest.mark.parametrize(
    "name, value", [("objective", "gan"), ("batches.micro_batch", 3), ("generator_loss.forward_weight", 0.5)]
)
def test_other_objectives_train_there(name, value):
    source = source_of("tiny")
    trainer = Trainer(config_of("tiny", source, changes={f"recipe.{name}": value}), source)
    go_to(trainer, trainer.recipe.stages[-1].name if name == "objective" else "joint training", penalty=True)
    assert all(np.isfinite(value) for value in trainer.step().values())


@pytest.mark.parametrize("preset", _wide(IMAGE_PRESETS, ["tiny"]))
def test_a_run_that_is_cut_goes_on_bit_for_bit(preset, tmp_path):
    source = source_of(preset)
    config = config_of(preset, source, steps=10)
    whole, cut = RunDirectory.create(tmp_path / "whole"), RunDirectory.create(tmp_path / "cut")
    train(whole, config, source, QUIET)

    def interrupt_at(step):
        return lambda trainer: trainer.steps_done == step and os.kill(os.getpid(), signal.SIGINT)

    for step in (3, 8):
        torch.manual_seed(99)  # whatever the generators hold: the checkpoint has their states
        with pytest.raises(Interrupted):
            train(cut, config, source, QUIET, interrupt_at(step))
    saved = load_state(cut.checkpoint, "checkpoint")["trainer"]["random"][0]
    assert set(saved) == {"cpu", fake_gpu.NAME}
    train(cut, config, source, QUIET)
    models = [load_state(run.model, "model")["model"] for run in (whole, cut)]
    assert models[0].keys() == models[1].keys() and "_extra_state" in models[0]  # the verdict
    for name, value in models[0].items():
        assert torch.equal(value.nan_to_num(), models[1][name].nan_to_num()), name


def test_its_checkpoint_does_not_go_on_on_a_cpu(tmp_path, monkeypatch):
    source = source_of("tiny")
    run = RunDirectory.create(tmp_path / "run")
    stop = lambda trainer: os.kill(os.getpid(), signal.SIGINT)  # noqa: E731
    with pytest.raises(Interrupted):
        train(run, config_of("tiny", source, steps=10), source, QUIET, stop)
    monkeypatch.setattr("led_fast.gpu.gpu", lambda: None)
    with pytest.raises(Exception, match="was begun by 1 process on GPUs; by 1 process on CPUs it cannot"):
        train(run, config_of("tiny", source, steps=10), source, QUIET)


@pytest.mark.parametrize("preset", PRESETS)
def test_points_train_on_the_cpu_and_leave_the_gpu_alone(preset, tmp_path, monkeypatch):
    for name in ("manual_seed", "manual_seed_all", "get_rng_state", "set_rng_state"):
        monkeypatch.setattr(torch.get_device_module(fake_gpu.NAME), name, _not_here)
    run = RunDirectory.create(tmp_path / "run")
    with fake_gpu.Count() as count:
        train(run, TrainConfig.of(open_source("ring"), preset, 0, 2), open_source("ring"), QUIET)
    assert not count.total and run.model.is_file()


def _not_here(*_):
    pytest.fail("the GPU's generator was touched")
