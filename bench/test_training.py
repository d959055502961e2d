"""Whole training steps: the fast operators against their references, where the time goes, and memory.

A step is a critic step with its generator steps; timed are as many as share one gradient penalty. `--beside PYTHON`
times those of that Python's led_fast, too.
"""

from collections.abc import Callable

import pytest
import torch
from memory import needs_counters, peak_memory
from training_step import CyclesElsewhere, cycle, trainer_of

from led_fast.ops import use_reference
from led_fast.training import Trainer

CASES = [
    ("ring", "default", "joint training"),
    ("ring", "inflated", "joint training"),
    ("ring", "perpendicular", "joint training"),
    ("ring", "paper", "joint training"),
    ("images", "mnist32", "warm-up"),
    ("images", "mnist32", "joint training"),
    ("images", "mnist32", "calibration"),
    ("images", "paper_mnist32", "joint training"),
]
BATCH = 64


def referenced(trainer: Trainer) -> None:
    with use_reference():
        cycle(trainer)


@pytest.mark.parametrize("threads", [1], indirect=True)
@pytest.mark.parametrize("data, preset, stage", CASES)
def test_step(compare, request, threads, data, preset, stage):
    fast, slow = (trainer_of(data, preset, stage) for _ in range(2))
    contenders = {"led_fast": lambda: cycle(fast), "reference": lambda: referenced(slow)}
    beside = request.config.getoption("--beside")
    if beside:
        contenders["beside"] = CyclesElsewhere(beside, data, preset, stage)
    try:
        case = {"data": data, "preset": preset, "stage": stage, "threads": threads}
        row = compare("training", case, contenders)
    finally:
        if beside:
            contenders["beside"].close()
    row.figures["ms a step"] = 1000 * row.seconds["led_fast"] / fast.recipe.penalty.interval


def parts_of(trainer: Trainer) -> dict[str, Callable[[], object]]:
    """What a step of an image preset consists of, each part by itself."""
    task, critic, generator = trainer.task, trainer.critic, trainer.generator
    x, y = task.data(BATCH, 0.5), generator.sample(BATCH)

    def through_critic() -> None:
        y.requires_grad_()
        torch.autograd.grad(critic(y).sum(), y)
        y.requires_grad_(False)

    return {
        "the generator's likelihood of data": lambda: (-generator.log_prob(x).mean()).backward(),
        "the generator's samples": lambda: sum(
            part.mean() for part in generator.rsample_and_log_prob(BATCH)
        ).backward(),
        "the critic at data and samples": lambda: critic(torch.cat([x, y])).mean().backward(),
        "the critic at samples, gradient to them": through_critic,
        "gradient penalty, every fourth step": lambda: task.squared_gradient(x).mean().backward(),
        "averages of the weights": trainer._update_averages,
    }


@pytest.mark.parametrize("threads", [1], indirect=True)
def test_parts_of_a_step(compare, threads):
    trainer = trainer_of("images", "mnist32")
    contenders = {"led_fast": lambda: cycle(trainer), **parts_of(trainer)}
    compare("training_parts", {"data": "images", "preset": "mnist32", "threads": threads}, contenders)


@needs_counters
@pytest.mark.parametrize("threads", [1], indirect=True)
@pytest.mark.parametrize("preset", ["mnist32", "paper_mnist32"])
def test_memory(compare, measuring, threads, preset):
    if not measuring:
        pytest.skip("nothing to smoke-test")
    large = {"recipe.batches.integral_samples": 256, "recipe.batches.integrals": 1}
    whole, parted, slow = (
        trainer_of("images", preset, changes={**large, "recipe.batches.micro_batch": micro_batch})
        for micro_batch in (None, 64, None)
    )
    contenders = {
        "led_fast": lambda: cycle(whole),
        "led_fast, micro_batch 64": lambda: cycle(parted),
        "reference": lambda: referenced(slow),
    }
    peaks = {name: peak_memory(run) for name, run in contenders.items()}
    row = compare("training_memory", {"preset": preset, "S": 256, "threads": threads}, contenders)
    row.figures |= {f"{name} MiB": peak / 2**20 for name, peak in peaks.items()}
