"""Whole training steps: the fast operators against their references, and where the time goes.

`step` is a critic step with its generator steps, after the warm-up. `memory` is what the process holds at its peak,
each contender in a process of its own.
"""

from dataclasses import replace

import pytest
import torch

from led_fast.data import open_source
from led_fast.data.images import ImageCollection, ImageSet, ImageSource
from led_fast.ops import use_reference
from led_fast.training import TrainConfig, Trainer

CASES = [
    ("ring", "default", {}),
    ("ring", "inflated", {}),
    ("ring", "perpendicular", {}),
    ("ring", "paper", {}),
    ("images", "mnist32", {"integral_samples": 64, "integrals": 1}),
    ("images", "paper_mnist32", {"integral_samples": 64, "integrals": 1}),
]


def source_of(data: str) -> object:
    if data == "ring":
        return open_source("ring")
    images = torch.randint(0, 256, (200, 1, 32, 32), dtype=torch.uint8)
    return ImageSource("noise", ImageCollection(ImageSet(images)))


def trainer_of(data: str, preset: str, changes: dict) -> Trainer:
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
    fast, slow = (trainer_of(data, preset, changes) for _ in range(2))
    contenders = {"led_fast": fast.step, "reference": lambda: referenced(slow)}
    row = compare(
        "training", {"what": "step", "data": data, "preset": preset, "threads": threads}, contenders
    )
    batch = fast.recipe.batch_size
    row.figures["samples a second"] = batch / row.seconds["led_fast"]
