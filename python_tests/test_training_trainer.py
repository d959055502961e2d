import copy
import json
import os
import signal
from dataclasses import replace

import pytest
import torch
from coarse import coarsen
from rich.console import Console

from led_fast.data import open_source
from led_fast.errors import InputError
from led_fast.kinds.points import PRESETS
from led_fast.kinds.points.task import typical_spacing
from led_fast.random_state import isolated
from led_fast.training import (
    DivergenceError,
    Interrupted,
    RunDirectory,
    TrainConfig,
    Trainer,
    load,
    load_model,
    objective,
    steps_in,
    train,
)
from led_fast.training.checkpoint import load_state
from led_fast.training.interrupt import StopSignal
from led_fast.training.run import MetricsLog, read_metrics
from led_fast.training.schedule import cosine_decay, geometric, linear

QUIET = Console(quiet=True)


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    coarsen(monkeypatch.setattr)


def config_of(steps, preset="default", changes=None):
    return TrainConfig.of(open_source("ring"), preset, steps=steps, changes=changes)


def assert_equal_states(a, b):
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal_states(a[key], b[key])
    elif isinstance(a, list | tuple):
        for x, y in zip(a, b, strict=True):
            assert_equal_states(x, y)
    else:
        assert a == b


def test_schedules():
    assert [cosine_decay(at, 0.5, 0.1) for at in (0, 0.5, 0.75, 1)] == pytest.approx([1, 1, 0.55, 0.1])
    values = [geometric(at, 8, 2, 0.25, 0.75) for at in (0, 0.25, 0.5, 0.75, 1)]
    assert values == pytest.approx([8, 8, 4, 2, 2])
    values = [linear(at, 8, 2, 0.25, 0.75) for at in (0, 0.25, 0.5, 0.75, 1)]
    assert values == pytest.approx([8, 8, 5, 2, 2])


def test_typical_spacing():
    points = torch.tensor([[0.0, 0.0], [0.0, 1.0], [5.0, 0.0], [5.0, 2.0], [9.0, 9.0]])
    assert typical_spacing(points) == 2.0
    again = points[torch.arange(5).repeat_interleave(torch.tensor([4, 1, 2, 3, 2]))]
    assert typical_spacing(again) == 2.0  # rows of a small table come more than once
    assert typical_spacing(points[:1].expand(9, -1)) == 0.0


def test_the_generators_loss_takes_the_tasks_weight_of_the_forward_kl(monkeypatch):
    trainer = Trainer(config_of(4, "paper"), open_source("ring"))
    seen = []
    mixed = objective.mixed_kl_loss
    monkeypatch.setattr(objective, "mixed_kl_loss", lambda *args: seen.append(args[2]) or mixed(*args))
    for _ in range(4):
        trainer.step()
    assert seen == [trainer.task.forward_weight(0.85, step / 4) for step in range(4)]
    assert seen[0] == 0.85 and seen[3] < 0.6


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_takes_steps_that_move_every_weight(preset):
    trainer = Trainer(config_of(3, preset), open_source("ring"))
    before = copy.deepcopy(trainer.state_dict())
    for _ in range(3):
        metrics = trainer.step()
    assert set(metrics) == {
        "critic_loss",
        "generator_loss",
        "kl_generator_model",
        "ess_fraction",
        "log_normalizer",
    }
    assert 0 < metrics["ess_fraction"] <= 1
    for network in (trainer.critic, trainer.generator):
        for name, parameter in network.named_parameters():
            kind = "critic" if network is trainer.critic else "generator"
            assert not torch.equal(parameter, before[kind][name]), name


def test_a_gan_of_the_same_networks_takes_steps():
    trainer = Trainer(config_of(3, changes={"recipe.objective": "gan"}), open_source("ring"))
    before = copy.deepcopy(trainer.state_dict())
    metrics = [trainer.step() for _ in range(3)][-1]
    assert set(metrics) == {"critic_loss", "generator_loss"}
    assert metrics["critic_loss"] < 2 and metrics["generator_loss"] > 0
    for kind in ("critic", "generator"):
        moved = [
            not torch.equal(p, before[kind][name]) for name, p in getattr(trainer, kind).named_parameters()
        ]
        assert sum(moved) > len(moved) / 2  # the base's weights have no gradient without a density


def test_one_sample_an_integral_bounds_many_from_below():
    losses = []
    for samples, integrals in ((1, 64), (16, 4), (64, 1)):  # of the same 64 proposals
        batches = {"recipe.batches.integral_samples": samples, "recipe.batches.integrals": integrals}
        trainer = Trainer(config_of(3, changes=batches), open_source("ring"))
        losses.append(trainer.step()["critic_loss"])
    assert losses[0] < losses[1] < losses[2]  # Jensen: the mean of logs is below the log of the mean


def test_the_gradient_penalty_is_taken_at_its_interval():
    penalty = {"recipe.penalty.weight": 0.1, "recipe.penalty.interval": 2}
    trainer = Trainer(config_of(5, changes=penalty), open_source("ring"))
    assert ["squared_gradient" in trainer.step() for _ in range(4)] == [True, False, True, False]


@pytest.mark.parametrize("micro_batch", [100, 1000])
def test_micro_batches_change_nothing_but_memory(micro_batch):
    trainers = []
    for size in (None, micro_batch):
        parts = {"recipe.batches.micro_batch": size}
        trainers.append(Trainer(config_of(2, changes=parts), open_source("ring")))
        trainers[-1].step()
    for whole, parts in zip(*(trainer.critic.parameters() for trainer in trainers), strict=True):
        torch.testing.assert_close(parts.grad, whole.grad, rtol=1e-4, atol=1e-5)


def test_the_critic_keeps_its_gradients_switched_on():
    trainer = Trainer(config_of(2), open_source("ring"))
    trainer.step()
    assert all(parameter.requires_grad for parameter in trainer.critic.parameters())


def test_the_average_is_an_exponential_one():
    trainer = Trainer(config_of(3, changes={"recipe.ema": 0.05}), open_source("ring"))
    name = "net.net.1.weight"
    expected = trainer.critic.state_dict()[name].clone()
    for _ in range(3):
        trainer.step()
        expected = 0.05 * expected + 0.95 * trainer.critic.state_dict()[name]
    torch.testing.assert_close(trainer.average_critic.state_dict()[name], expected)


def test_looking_at_the_average_leaves_it_as_it_was():
    trainer = Trainer(config_of(3, "paper"), open_source("ring"))
    trainer.step()
    before = copy.deepcopy(trainer.state_dict())
    with isolated("cpu"):
        trainer.task.monitor(trainer.average_generator)
    assert_equal_states(trainer.state_dict(), before)


def test_same_seed_same_weights_other_seed_others():
    states = []
    for seed in (0, 0, 1):
        trainer = Trainer(replace(config_of(3), seed=seed), open_source("ring"))
        for _ in range(3):
            trainer.step()
        states.append(trainer.state_dict())
    assert_equal_states(states[0], states[1])
    assert not torch.equal(states[0]["critic"]["net.net.1.weight"], states[2]["critic"]["net.net.1.weight"])


@pytest.mark.parametrize("network", ["critic", "generator"])
def test_a_loss_that_is_not_finite_touches_no_weight(network):
    trainer = Trainer(config_of(5), open_source("ring"))
    trainer.step()
    poisoned = next(getattr(trainer, network).parameters())
    with torch.no_grad():
        poisoned.view(-1)[0] = float("nan")
    before = copy.deepcopy(getattr(trainer, network).state_dict())
    with pytest.raises(DivergenceError, match="loss is nan"):
        trainer.step()
    after = getattr(trainer, network).state_dict()
    assert all(torch.equal(after[key].nan_to_num(), before[key].nan_to_num()) for key in before)


def start(path, config, monkeypatch=None, at=None, act=None, after_step=None):
    """Trains into a folder; `act(trainer)` is called before the step after `at`."""
    if at is not None:
        step = Trainer.step

        def stepped(self):
            if self.steps_done == at:
                act(self)
            return step(self)

        monkeypatch.setattr(Trainer, "step", stepped)
    run = RunDirectory.create(path) if not path.exists() else RunDirectory(path)
    try:
        train(run, config, open_source("ring"), QUIET, after_step)
    finally:
        if at is not None:
            monkeypatch.setattr(Trainer, "step", step)
    return run


@pytest.mark.parametrize(
    ("number", "preset"), [(signal.SIGINT, "default"), (signal.SIGTERM, "default"), (signal.SIGINT, "paper")]
)
def test_a_signal_stops_after_the_step_and_resume_is_exact(tmp_path, monkeypatch, number, preset):
    config = config_of(6, preset)
    whole = start(tmp_path / "whole", config)
    with pytest.raises(Interrupted) as stop:
        start(tmp_path / "cut", config, monkeypatch, at=2, act=lambda _: os.kill(os.getpid(), number))
    assert (stop.value.signal, stop.value.steps_done) == (number, 3)
    cut = start(tmp_path / "cut", config)
    assert_equal_states(load_state(cut.model, "model")["model"], load_state(whole.model, "model")["model"])
    states = [load_state(run.checkpoint, "checkpoint")["trainer"] for run in (cut, whole)]
    assert_equal_states(*states)
    rows = [{row["step"]: row for row in read_metrics(run.metrics)} for run in (cut, whole)]
    assert rows[0][6] == rows[1][6]


def test_divergence_keeps_the_last_checkpoint_and_says_what_to_try(tmp_path, monkeypatch):
    monkeypatch.setattr("led_fast.training.session.CHECKPOINT_EVERY", 2)

    def poison(trainer):
        trainer.objective.log_normalizer = float("nan")

    with pytest.raises(DivergenceError, match=r"diverged at step 4: .*last checkpoint .* is kept.*--seed"):
        start(tmp_path / "run", config_of(6), monkeypatch, at=3, act=poison)
    run = RunDirectory(tmp_path / "run")
    assert load_state(run.checkpoint, "checkpoint")["trainer"]["steps_done"] == 2
    assert not run.model.exists()
    run.config.touch()
    with pytest.raises(InputError, match="not finished"):
        load(run.path)


def test_training_leaves_the_global_random_state_alone(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    config = config_of(2)
    start(tmp_path / "run", config)
    steps_in(0.001, config, open_source("ring"))
    assert torch.equal(torch.rand(3), expected)


@pytest.fixture
def interruptible():
    """SIGINT as a shell's foreground job has it: one started in the background may have inherited to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_second_signal_has_its_usual_effect(interruptible):
    with pytest.raises(KeyboardInterrupt), StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.received == signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_metrics_after_the_checkpoint_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in (10, 20, 30)) + '{"step": 4')
    with MetricsLog(path, last_step=20) as log:
        log.append({"step": 30, "new": 1})
    assert read_metrics(path) == [{"step": 10}, {"step": 20}, {"step": 30, "new": 1}]


def test_damaged_metrics_are_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 10}\n' + bytes(8) + b'\n{"step": 30}\n')  # as after a power failure
    with pytest.raises(InputError, match=r"metrics.jsonl: line 2 is not valid JSON"):
        MetricsLog(path, last_step=20)


def test_networks_other_than_the_presets_are_loaded_from_the_config(tmp_path):
    config = config_of(1, changes={"model.generator.features": 3, "model.critic.width": 16})
    model = load_model(start(tmp_path / "run", config)).model
    assert len(model.generator.rsample(5)) == 5
    assert model.critic.critic.net.net[-1].in_features == 16


def test_an_observer_sees_every_step_and_changes_nothing(tmp_path):
    config, seen = config_of(4), []
    start(tmp_path / "observed", config, after_step=lambda trainer: seen.append(trainer.steps_done))
    start(tmp_path / "alone", config)
    assert seen == [1, 2, 3, 4]
    observed, alone = (load_model(RunDirectory(tmp_path / name)).model for name in ("observed", "alone"))
    assert_equal_states(dict(observed.state_dict()), dict(alone.state_dict()))
