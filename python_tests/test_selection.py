"""Of a stage's running averages, the best on validation data are kept."""

import copy
import json

import pytest
import torch
from torch import nn

from led_fast.data import open_source
from led_fast.kinds.points import PointsTask
from led_fast.training import TrainConfig, Trainer
from led_fast.training.selection import BestAverages
from led_fast.training.settings import Selection

HELD_OUT = torch.linspace(-1, 1, 40).view(20, 2)
STAGES = {
    "recipe.warm_up": 0.5,
    "recipe.generator_loss.likelihood_weight": 0.5,
    "recipe.ema": 0.5,
    "recipe.batches.data": 16,
    "recipe.batches.integral_samples": 16,
    "recipe.batches.generated": 16,
    "recipe.batches.generator_steps": 1,
}


def best_of(scores, checks=4, patience=None):
    """A selection whose checks have these scores, and the two networks, of one weight, that it looks at."""
    networks = [nn.Linear(1, 1, bias=False) for _ in range(2)]
    remaining = iter(scores)
    return BestAverages(Selection(checks, patience), lambda *_: next(remaining), *networks), networks


def fill(networks, value):
    for sign, network in zip((1, -1), networks, strict=True):
        nn.init.constant_(network.weight, sign * value)


def weights(networks):
    return [network.weight.item() for network in networks]


def walk(best, networks, checks):
    """Checks the stage "a" of so many steps; the weights are those of the step."""
    fill(networks, 0)
    best.begin("a")
    found = []
    for step in range(1, checks + 1):
        fill(networks, step)
        found.append(best.after_step("a", step, checks))
    return found


@pytest.mark.parametrize(
    "scores, kept",
    [
        ([1.0, 3.0, 2.0, 2.5, 0.0], 1),
        ([9.0, 3.0, 2.0, 2.5, 0.0], 0),
        ([1.0, 2.0, 3.0, 4.0, 5.0], 4),
        ([1.0, 1.0, 1.0, 1.0, 1.0], 0),  # the earliest of equals
        ([-torch.inf, 1.0, -torch.inf, 0.0, 0.0], 1),
        ([torch.nan, 1.0, torch.nan, 2.0, torch.nan], 3),
    ],
)
def test_the_best_is_put_back(scores, kept):
    best, networks = best_of(scores)
    assert len(walk(best, networks, 4)) == 4 and weights(networks) == [4, -4]
    best.restore()
    assert weights(networks) == [kept, -kept]


def test_checks_are_spread_evenly_over_a_stage():
    best, networks = best_of(iter(range(100)), checks=3)
    fill(networks, 0)
    best.begin("a")
    seen = [step for step in range(1, 11) if best.after_step("a", step, 10)]
    assert seen == [4, 7, 10]
    assert [step for step in range(1, 3) if best.after_step("a", step, 2)] == [
        1,
        2,
    ]  # fewer steps than checks


def test_without_checks_or_scores_the_last_is_kept():
    for checks, scores in ((0, []), (4, [None] * 5)):
        best, networks = best_of(scores, checks)
        assert walk(best, networks, 4) == [{}] * 4
        best.restore()
        assert weights(networks) == [4, -4] and not best.exhausted


def test_a_stage_begins_anew():
    best, networks = best_of([1.0, 9.0, 2.0, 3.0, 3.0, 0.5, 0.6, 0.4, 0.3, 0.2], patience=3)
    walk(best, networks, 4)
    assert best.exhausted
    walk(best, networks, 4)
    best.restore()
    assert weights(networks) == [1, -1] and best.exhausted


def test_patience_counts_checks_without_a_better_score():
    best, networks = best_of([1.0, 0.0, 2.0, 2.0, 1.0, 3.0], patience=2)
    fill(networks, 0)
    best.begin("a")
    found = []
    for step in range(1, 6):
        best.after_step("a", step, 4)
        found.append(best.exhausted)
    assert found == [False, False, False, True, False]


@pytest.mark.parametrize(
    "scores", [[1.0, 3.0, 2.0, 2.5, 0.0], [torch.nan, -torch.inf, torch.nan, -torch.inf, 0.0]]
)
def test_a_state_goes_on(scores):
    whole, networks = best_of(scores, patience=2)
    found = walk(whole, networks, 4)
    for cut in range(5):
        first, networks_1 = best_of(scores, patience=2)
        fill(networks_1, 0)
        first.begin("a")
        for step in range(1, cut + 1):
            fill(networks_1, step)
            first.after_step("a", step, 4)
        state = copy.deepcopy(first.state_dict())
        json.dumps({name: value for name, value in state.items() if name != "best"}, allow_nan=False)
        second, networks_2 = best_of(scores[cut + 1 :], patience=2)
        second.load_state_dict(state)
        for step in range(cut + 1, 5):
            fill(networks_2, step)
            assert str(second.after_step("a", step, 4)) == str(found[step - 1])
        assert second.exhausted == whole.exhausted
        second.restore()
        whole.restore()
        assert weights(networks_2) == weights(networks)


def trainer_of(changes=None, steps=20):
    return Trainer(
        TrainConfig.of(open_source("ring"), steps=steps, changes={**STAGES, **(changes or {})}),
        open_source("ring"),
    )


@pytest.fixture
def by_likelihood(monkeypatch):
    def validate(task, critic, generator, stage):
        with torch.no_grad():
            return generator.log_prob(HELD_OUT).mean().item()

    monkeypatch.setattr(PointsTask, "validate", validate)


@pytest.fixture
def by_list(monkeypatch):
    """Has the checks of a run give the scores of a list, by stage; notes the networks that they see."""
    seen = {}

    def give(scores):
        def validate(task, critic, generator, stage):
            states = [copy.deepcopy(network.state_dict()) for network in (critic, generator)]
            seen.setdefault(stage, []).append(states)
            return scores[stage][len(seen[stage]) - 1] if stage in scores else None

        monkeypatch.setattr(PointsTask, "validate", validate)
        return seen

    return give


def same(network, state):
    return all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_the_best_of_a_stage_is_what_the_next_one_and_the_model_get(by_list):
    seen = by_list({"warm-up": [0.0, 5.0, 1.0], "joint training": [0.0, 1.0, 7.0, 1.0, 2.0]})
    trainer = trainer_of({"recipe.selection.checks": 2})
    rows = [trainer.step() for _ in range(10)]
    assert [step for step, row in enumerate(rows, 1) if "validation" in row] == [5, 10]
    assert same(trainer.average_generator, seen["warm-up"][2][1])  # the last, until the stage is over
    trainer.step()
    critic, generator = seen["joint training"][0]
    assert all(torch.equal(value, seen["warm-up"][1][1][name]) for name, value in generator.items())
    trainer = trainer_of({"recipe.selection.checks": 4, "recipe.warm_up": 0.0})
    seen.clear()
    for _ in range(20):
        trainer.step()
    last = copy.deepcopy(trainer.average_generator.state_dict())
    critic, generator = trainer.finished_networks()
    best = seen["joint training"][2]
    assert same(critic, best[0]) and same(generator, best[1]) and not same(generator, last)


def test_patience_leaves_out_the_rest_of_its_stage_alone(by_list):
    by_list({"warm-up": [3.0, 2.0, 1.0, 0.0, 0.0, 0.0], "joint training": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]})
    trainer = trainer_of({"recipe.selection.checks": 5, "recipe.selection.patience": 2})
    rows = [trainer.step() for _ in range(20)]
    assert [bool(row) for row in rows] == [True] * 4 + [False] * 6 + [True] * 10


def test_checks_change_no_step(by_likelihood):
    rows, states = [], []
    for checks in (0, 5):
        trainer = trainer_of({"recipe.selection.checks": checks, "recipe.warm_up": 0.0})
        rows.append([{k: v for k, v in trainer.step().items() if k != "validation"} for _ in range(20)])
        states.append(trainer.state_dict())
    assert rows[0] == rows[1]
    assert torch.equal(states[0]["random"][0]["cpu"], states[1]["random"][0]["cpu"])


@pytest.mark.parametrize("cut", [3, 7, 10, 13])
def test_a_run_resumes_within_a_stage_bit_for_bit(by_likelihood, cut):
    changes = {"recipe.selection.checks": 4, "recipe.selection.patience": 1}
    whole = trainer_of(changes)
    for _ in range(cut):
        whole.step()
    state = copy.deepcopy(whole.state_dict())
    rows = [whole.step() for _ in range(20 - cut)]
    resumed = trainer_of(changes)
    resumed.load_state_dict(state)
    assert [resumed.step() for _ in range(20 - cut)] == rows
    for network, other in zip(whole.finished_networks(), resumed.finished_networks(), strict=True):
        assert same(network, other.state_dict())


def test_rates_rise_in_the_first_steps_of_every_stage():
    trainer = trainer_of(
        {"recipe.optimizer.rise": 3, "recipe.optimizer.decay_from": 1.0, "recipe.warm_up": 0.55}, 100
    )
    rates = []
    for step in (0, 1, 2, 3, 54, 55, 56, 57, 58, 99):  # .55 · 100 is more than 55 in floating point
        trainer.steps_done = step
        trainer._set_learning_rates(step / 100)
        rates.append(float(trainer.generator_optimizer.param_groups[0]["lr"]) / 3e-3)
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1, 1, 0.25, 0.5, 0.75, 1, 1])
