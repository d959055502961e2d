"""What a run says of its time, by a clock that the test turns; each stage has a pace of its own."""

from types import SimpleNamespace

import pytest
from image_sources import noise_source
from rich.console import Console

from led_fast.kinds import images, points
from led_fast.training import Recipe, TrainConfig, Trainer, steps_in
from led_fast.training.progress import ProgressDisplay
from led_fast.training.settings import Calibration

SECONDS = {"warm-up": 1.0, "joint training": 5.0, "calibration": 2.0}  # a step


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=0.0, perf_counter=lambda: clock.now, monotonic=lambda: clock.now)
    for module in ("progress", "pace"):
        monkeypatch.setattr(f"led_fast.training.{module}.time", clock)
    return clock


def test_a_recipe_has_the_stages_that_it_uses():
    def names(recipe):
        return [stage.name for stage in recipe.stages]

    assert names(points.PRESETS["default"].recipe) == ["joint training"]
    assert names(images.PRESETS["mnist32"].recipe) == ["warm-up", "joint training", "calibration"]
    assert names(Recipe(warm_up=0.5, calibration=Calibration(0.9), objective="gan")) == ["joint training"]
    assert names(Recipe(warm_up=1.0, calibration=Calibration(0.9))) == ["warm-up"]
    recipe = images.PRESETS["tiny"].recipe
    assert [recipe.stage(at).name for at in (0.699, 0.7, 0.899, 0.9, 1.0)] == [
        "warm-up",
        *2 * ["joint training"],
        *2 * ["calibration"],
    ]


@pytest.fixture
def lines(capsys, clock):
    """Lines of the display after some steps, where all steps of a stage take as long, and none once it rests."""

    def lines(recipe, steps, start=0, rest_from=100):
        display, seen = ProgressDisplay("run", start, 100, Console(width=200), recipe), start
        for step in steps:
            for done in range(seen, step):
                clock.now += SECONDS[recipe.stage(done / 100).name] if done < rest_from else 0.0
            display.update(step, {"critic_loss": 1.0})
            seen = step
        return [line.split("1.000  ")[1] for line in capsys.readouterr().out.splitlines()]

    return lines


def test_the_time_left_is_that_of_a_stage_by_its_own_pace(lines):
    assert lines(images.PRESETS["tiny"].recipe, [10, 60, 70, 80, 90, 95, 100]) == [
        "1:00 of warm-up left",
        "0:10 of warm-up left",
        "joint training begins",
        "0:50 of joint training left",
        "calibration begins",
        "0:10 of calibration left",
        "0:00 of calibration left",
    ]


def test_a_resumed_run_knows_its_stage(lines):
    assert lines(images.PRESETS["mnist32"].recipe, [80], start=75) == ["0:50 of joint training left"]


def test_a_calibration_that_rests_is_soon_done(lines):
    assert lines(Recipe(calibration=Calibration(0.5)), [50, 60, 70], rest_from=60)[1:] == [
        "1:20 of calibration left",
        "0:00 of calibration left",
    ]


def test_a_run_of_one_stage_does_not_name_it(lines):
    assert lines(points.PRESETS["default"].recipe, [50]) == ["4:10 left"]


@pytest.mark.parametrize("preset, a_step", [("tiny", 0.7 + 0.2 * 5 + 0.1 * 2), ("paper_mnist32", 5.0)])
def test_minutes_become_steps_by_the_pace_of_each_stage(clock, monkeypatch, preset, a_step):
    source = noise_source(shape=images.PRESETS[preset].model.shape)
    config = TrainConfig.of(source, preset)

    def step(trainer):
        clock.now += SECONDS[config.recipe.stage(trainer.steps_done / trainer.config.steps).name]
        trainer.steps_done += 1

    def begin(trainer, stage, share=1.0):
        clock.now += 40 * share if stage.begin else 0

    monkeypatch.setattr(Trainer, "step", step)
    monkeypatch.setattr(Trainer, "begin_stage", begin)
    once = sum(40 for stage in config.recipe.stages if stage.begin)
    assert steps_in(10.0, config, source, clock=lambda: clock.now) == round((600 - once) / a_step)
