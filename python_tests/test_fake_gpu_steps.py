"""What a training step asks of a GPU: launches, one wait, and nothing that a CUDA graph cannot record."""

import copy

import fake_gpu
import pytest
import torch
from fake_gpu.small import config_of, go_to, source_of

from led_fast.kinds.images import PRESETS, task
from led_fast.training import DivergenceError, Trainer

QUICK = {"tiny", "mnist32", "paper_mnist32"}
LAUNCHES = {  # of a step, at most
    ("tiny", "warm-up", False): 280,
    ("tiny", "joint training", False): 1000,
    ("tiny", "joint training", True): 1085,
    ("tiny", "calibration", False): 200,
    ("mnist32", "warm-up", False): 450,
    ("mnist32", "joint training", False): 1000,
    ("mnist32", "joint training", True): 1100,
    ("mnist32", "calibration", False): 310,
    ("color32", "warm-up", False): 1300,
    ("color32", "joint training", False): 2700,
    ("color32", "joint training", True): 2840,
    ("color32", "calibration", False): 730,
    ("color64", "warm-up", False): 1630,
    ("color64", "joint training", False): 3350,
    ("color64", "joint training", True): 3500,
    ("color64", "calibration", False): 890,
    ("paper_mnist32", "joint training", False): 1280,
    ("paper_mnist32", "joint training", True): 1780,
    ("paper_color32", "joint training", False): 1120,
    ("paper_color32", "joint training", True): 1620,
    ("paper_color64", "joint training", False): 1020,
    ("paper_color64", "joint training", True): 1630,
}


def _kinds():
    for preset, (_, recipe) in PRESETS.items():
        for stage in recipe.stages:
            for penalty in (
                (False, True) if stage.name == "joint training" and recipe.penalty.weight else (False,)
            ):
                marks = () if preset in QUICK else (pytest.mark.slow,)
                yield pytest.param(
                    preset, stage.name, penalty, marks=marks, id=f"{preset} {stage.name} {penalty}"
                )


@pytest.fixture(scope="module")
def trainers():
    """A trainer of each preset that has taken steps, so that moments are there and normalisation layers started."""
    found = {}

    def get(preset):
        if preset not in found:
            found[preset] = trainer_of(preset)
            found[preset].step()
            found[preset].step()
        return found[preset]

    return get


def trainer_of(preset):
    source = source_of(preset)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task, "_STANDARDIZED_BY", 100)
        return Trainer(config_of(preset, source, cuda_graph="off"), source)


@pytest.mark.parametrize("preset, stage, penalty", list(_kinds()))
def test_a_step_waits_once_and_its_launches_are_counted(trainers, preset, stage, penalty):
    trainer = trainers(preset)
    for _ in range(2):
        go_to(trainer, stage, penalty)
        with fake_gpu.Count() as count:
            metrics = trainer.step()
    assert ("squared_gradient" in metrics) == penalty
    assert count.waits == 1, count.waiting_lines()
    assert count.launches <= LAUNCHES[preset, stage, penalty]
    assert count.total["h2d"] == (
        2 if stage == "joint training" and trainer.recipe.generator_loss.likelihood_weight else 1
    )


@pytest.mark.parametrize("preset, stage, penalty", list(_kinds()))
def test_a_step_can_be_recorded(trainers, preset, stage, penalty):
    """All but the copies of data to the device, which come before, and the look at the numbers, which comes after."""
    trainer = trainers(preset)
    go_to(trainer, stage, penalty)
    at = trainer.steps_done / trainer.config.steps
    learn = trainer._calibrate if stage == "calibration" else trainer._learn
    trainer._set_learning_rates(at)
    trainer._objective_in_use().prepare()
    with trainer.task.feed.noting() as batches:
        learn(at)
    trainer.task.feed.refill(batches)
    with trainer.task.feed.giving(batches), fake_gpu.Capture():
        packed = learn(at)
    assert packed.read()


@pytest.mark.parametrize("network", ["critic", "generator"])
def test_no_weight_is_touched_by_a_step_that_is_not_finite(network, trainers):
    trainer = trainers("tiny")
    go_to(trainer, "joint training", False)
    trainer.step()
    poisoned = next(getattr(trainer, network).parameters())
    before = copy.deepcopy(trainer.state_dict())
    with torch.no_grad():
        kept = poisoned.view(-1)[-1].clone()
        poisoned.view(-1)[-1] = torch.nan
    with pytest.raises(
        DivergenceError, match=f"the {'critic' if network == 'critic' else '.*'}'s loss is nan"
    ):
        trainer.step()
    with torch.no_grad():
        poisoned.view(-1)[-1] = kept
    after = trainer.state_dict()
    assert after["steps_done"] == before["steps_done"]
    for part in ("critic", "generator", "average_critic", "average_generator"):
        for name, value in before[part].items():
            assert torch.equal(after[part][name], value), (part, name)
    for part in ("critic_optimizer", "generator_optimizer"):
        for key, moments in before[part]["state"].items():
            for name, value in moments.items():
                assert torch.equal(after[part]["state"][key][name], value), (part, name)


def test_the_learning_rate_lies_on_the_device_after_a_checkpoint_too():
    trainer, other = trainer_of("tiny"), trainer_of("tiny")
    trainer.step()
    state = copy.deepcopy(trainer.state_dict())
    for part in ("critic_optimizer", "generator_optimizer"):  # as a file has it
        for group in state[part]["param_groups"]:
            group["lr"] = group["lr"].cpu()
    trainer.step()
    other.load_state_dict(state)  # which sets the random numbers, too
    other.step()
    for one, two in zip(trainer.generator.parameters(), other.generator.parameters(), strict=True):
        assert torch.equal(one, two)
    (group,) = other.generator_optimizer.param_groups
    assert group["lr"].device.type == fake_gpu.NAME and group["capturable"]
