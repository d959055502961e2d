"""Recorded steps are the eager ones, bit for bit: schedules, data, random numbers, stages and checkpoints."""

import copy
import types

import pytest
import torch
from fake_gpu import graphs
from fake_gpu.small import config_of, source_of

from led_fast.kinds.images import task
from led_fast.training import TrainConfig, Trainer, graph

STEPS = 36
TILTED = {
    "recipe.batches.integrals": 4,
    "recipe.batches.integral_samples": 1,
    "recipe.warm_up": 1 / 3,
    "recipe.calibration.begin": 2 / 3,
    "recipe.calibration.ess": 0.0,
}


@pytest.fixture
def cuda(monkeypatch):
    stub = graphs.cuda()
    monkeypatch.setattr(graph, "torch", types.SimpleNamespace(cuda=stub))
    monkeypatch.setattr(graph, "_WARM_UP", 1)
    monkeypatch.setattr(task, "_STANDARDIZED_BY", 100)
    return stub


def trainer_of(mode, changes, preset="tiny", say=None):
    source = source_of(preset)
    return Trainer(config_of(preset, source, STEPS, mode, changes), source, say=say or pytest.fail)


def run(steps, mode, changes, *args, **options):
    """A new trainer, which seeds the generators, and the metrics of its steps."""
    trainer = trainer_of(mode, changes, *args, **options)
    return trainer, [trainer.step() for _ in range(steps)]


def assert_equal_states(a, b):
    flat_a, flat_b = (torch.utils._pytree.tree_leaves(t.state_dict()) for t in (a, b))
    for one, two in zip(flat_a, flat_b, strict=True):
        assert torch.equal(one, two) if isinstance(one, torch.Tensor) else one == two


def test_every_stage_recorded_is_the_eager_one(cuda):
    (eager, expected), (recorded, metrics) = (run(STEPS, mode, TILTED) for mode in ("off", "auto"))
    assert eager.graphs is None and metrics == expected
    assert_equal_states(recorded, eager)
    # Of each stage, steps with the penalty and without: the first four are eager, all others replays.
    assert sorted(made.replays for made in cuda.made) == [2, 2, 2, 6, 6, 6]


@pytest.mark.parametrize(
    "preset, changes",
    [
        ("tiny", {"recipe.objective": "gan", "recipe.penalty.weight": 0.1}),
        (
            "tiny",
            {
                "recipe.generator_loss.forward_weight": 0.5,
                "recipe.warm_up": 0.0,
                "recipe.calibration.begin": 1.0,
            },
        ),
        pytest.param("paper_mnist32", {}, marks=pytest.mark.slow),
        pytest.param("mnist32", TILTED | {"recipe.warm_up": 0.0}, marks=pytest.mark.slow),
        pytest.param("color32", TILTED | {"recipe.warm_up": 0.0}, marks=pytest.mark.slow),
    ],
)
def test_other_steps_recorded_are_the_eager_ones(cuda, preset, changes):
    (eager, expected), (recorded, metrics) = (run(12, mode, changes, preset) for mode in ("off", "auto"))
    assert metrics == expected
    assert_equal_states(recorded, eager)
    assert sum(made.replays for made in cuda.made) > 6


def test_a_run_that_is_cut_goes_on_bit_for_bit(cuda):
    whole, _ = run(9, "auto", TILTED)
    state = copy.deepcopy(whole.state_dict())
    metrics = [whole.step() for _ in range(14)]
    resumed = trainer_of("auto", TILTED)
    resumed.load_state_dict(state)
    assert [resumed.step() for _ in range(14)] == metrics
    assert_equal_states(resumed, whole)


def test_a_state_that_is_loaded_back_goes_on_bit_for_bit(cuda):
    trainer, _ = run(9, "auto", TILTED)
    state = copy.deepcopy(trainer.state_dict())
    metrics = [trainer.step() for _ in range(8)]
    trainer.load_state_dict(state)
    assert [trainer.step() for _ in range(8)] == metrics


@pytest.mark.parametrize("where", ["within the step", "within the generator's", "at its end"])
def test_a_step_that_cannot_be_recorded_goes_on_without(cuda, monkeypatch, where):
    said = []
    # With critic steps from the first on, which a generator's that was cut short must not spoil.
    changes = TILTED | ({"recipe.warm_up": 0.0} if "generator" in where else {})
    eager, expected = run(20, "off", changes)
    if where != "at its end":
        descend = Trainer._descend

        def waiting(self, optimizer, losses, name, *args):
            found = descend(self, optimizer, losses, name, *args)
            if name == "generator" or "generator" not in where:
                found.item()
            return found

        monkeypatch.setattr(Trainer, "_descend", waiting)
    else:
        monkeypatch.setattr(cuda, "graph", _broken_at_its_end)
    recorded, metrics = run(20, "auto", changes, say=said.append)
    assert metrics == expected
    assert_equal_states(recorded, eager)
    (message,) = said
    reason = "invalid graph" if where == "at its end" else "operation not permitted when stream is capturing"
    assert (
        message.startswith("the training step could not be recorded as a CUDA graph (") and reason in message
    )
    assert sum(made.replays for made in cuda.made) == 0


class _broken_at_its_end:
    def __init__(self, *arguments, **options):
        self._whole = graphs._recording(*arguments, **options)

    def __enter__(self):
        self._whole.__enter__()

    def __exit__(self, *raised):
        self._whole.__exit__(*raised)
        raise RuntimeError("invalid graph")


def test_several_processes_and_points_record_nothing(cuda):
    from led_fast.data import open_source
    from led_fast.training import World

    points = Trainer(TrainConfig.of(open_source("ring"), steps=3), open_source("ring"))
    assert points.graphs is None
    config = trainer_of("auto", TILTED)
    assert config.graphs is not None
    config.world = World(0, 2)
    assert config._new_graphs(pytest.fail) is None
