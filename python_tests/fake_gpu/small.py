"""Small runs on images of every preset: soft blobs for data, a few of them a batch."""

from collections.abc import Mapping
from typing import Any

import torch

from led_fast.data.images import ImageCollection, ImageSet, ImageSource
from led_fast.models import IMAGE_PRESETS
from led_fast.training import CudaGraph, TrainConfig, Trainer

SMALL = {
    "recipe.batches.data": 4,
    "recipe.batches.generated": 4,
    "recipe.calibration.samples": 4,
}


def blobs(shape: tuple[int, int, int], count: int) -> torch.Tensor:
    """Soft random shapes in two classes, (count, C, H, W) uint8: dark ones, then bright ones."""
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(0)
        coarse = 120 * torch.rand(count, shape[0], 2, 2, device="cpu")
    coarse[count // 2 :] += 120
    return torch.nn.functional.interpolate(coarse, size=shape[1:], mode="bilinear").to(torch.uint8)


def source_of(preset: str, count: int = 120) -> ImageSource:
    """Blobs of a preset's shape, with labels."""
    images = blobs(IMAGE_PRESETS[preset].shape, count)
    labels = (torch.arange(count, device="cpu") >= count // 2).long()
    return ImageSource("blobs", ImageCollection(ImageSet(images, labels)))


def config_of(
    preset: str,
    source: ImageSource,
    steps: int = 1000,
    cuda_graph: CudaGraph = "auto",
    changes: Mapping[str, Any] | None = None,
) -> TrainConfig:
    """A run of a preset, with few samples a step; `changes` by dotted names."""
    config = TrainConfig.of(source, preset, steps=steps, changes={"cuda_graph": cuda_graph, **SMALL})
    several = config.recipe.batches.integrals > 1
    few = {f"recipe.batches.{'integrals' if several else 'integral_samples'}": 4}
    return config.changed({**few, **(changes or {})})


def go_to(trainer: Trainer, stage: str, penalty: bool = False) -> None:
    """Has the next step be one within a stage, with the critic's gradient penalty or without."""
    recipe, steps = trainer.recipe, trainer.config.steps
    begin = next(s.begin for s in recipe.stages if s.name == stage)
    first = round(begin * steps) + 1
    trainer.steps_done = next(
        step
        for step in range(first, steps)
        if recipe.penalty.interval == 1 or penalty == (step % recipe.penalty.interval == 0)
    )
