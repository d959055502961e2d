"""Whole training steps: the fast operators against their references, where the time goes, and memory.

A step is a critic step with its generator steps, after the warm-up.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from memory import needs_counters, peak_memory

from led_fast.data import open_source
from led_fast.data.images import ImageCollection, ImageSet, ImageSource
from led_fast.ops import use_reference
from led_fast.training import TrainConfig, Trainer

S64 = {"integral_samples": 64, "integrals": 1}
CASES = [
    ("ring", "default", {}),
    ("ring", "inflated", {}),
    ("ring", "perpendicular", {}),
    ("ring", "paper", {}),
    ("images", "mnist32", S64),
    ("images", "paper_mnist32", S64),
]
BATCH = 64


def source_of(data: str) -> object:
    if data == "ring":
        return open_source("ring")
    images = torch.randint(0, 256, (200, 1, 32, 32), dtype=torch.uint8)
    return ImageSource("noise", ImageCollection(ImageSet(images)))


def trainer_of(data: str, preset: str, **changes: object) -> Trainer:
    source = source_of(data)
    config = TrainConfig.from_preset(data, source.fingerprint, preset, steps=10**6)
    recipe = replace(config.recipe, warm_up=0.0, **changes)
    return Trainer(replace(config, recipe=recipe), source)


def referenced(trainer: Trainer) -> None:
    with use_reference():
        trainer.step()


@pytest.mark.parametrize("threads", [1], indirect=True)
@pytest.mark.parametrize("data, preset, changes", CASES)
def test_step(compare, threads, data, preset, changes):
    fast, slow = (trainer_of(data, preset, **changes) for _ in range(2))
    contenders = {"led_fast": fast.step, "reference": lambda: referenced(slow)}
    row = compare("training", {"data": data, "preset": preset, "threads": threads}, contenders)
    row.figures["samples a second"] = fast.recipe.batch_size / row.seconds["led_fast"]


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
    trainer = trainer_of("images", "mnist32", **S64)
    contenders = {"led_fast": trainer.step, **parts_of(trainer)}
    compare("training_parts", {"data": "images", "preset": "mnist32", "threads": threads}, contenders)


@needs_counters
@pytest.mark.parametrize("threads", [1], indirect=True)
@pytest.mark.parametrize("preset", ["mnist32", "paper_mnist32"])
def test_memory(compare, measuring, threads, preset):
    if not measuring:
        pytest.skip("nothing to smoke-test")
    large = {"integral_samples": 256, "integrals": 1}
    whole, parted, slow = (
        trainer_of("images", preset, **large, micro_batch=micro_batch) for micro_batch in (None, 64, None)
    )
    contenders = {
        "led_fast": whole.step,
        "led_fast, micro_batch 64": parted.step,
        "reference": lambda: referenced(slow),
    }
    peaks = {name: peak_memory(run) for name, run in contenders.items()}
    row = compare("training_memory", {"preset": preset, "S": 256, "threads": threads}, contenders)
    row.figures |= {f"{name} MiB": peak / 2**20 for name, peak in peaks.items()}
