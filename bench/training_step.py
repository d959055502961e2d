"""Trainers to be timed, in this process or in that of another installation.

``python bench/training_step.py DATA PRESET STAGE`` runs `cycle` for each line that it reads, and answers by a line.
"""

import subprocess
import sys
from pathlib import Path

import torch

from led_fast.data import open_source
from led_fast.data.images import ImageCollection, ImageSet, ImageSource
from led_fast.training import TrainConfig, Trainer


def trainer_of(
    data: str, preset: str, stage: str = "joint training", changes: dict[str, object] | None = None
) -> Trainer:
    """At the beginning of a stage of its training; `changes` to the preset, by dotted names."""
    if data == "images":
        images = torch.randint(0, 256, (200, 1, 32, 32), dtype=torch.uint8)
        source = ImageSource("noise", ImageCollection(ImageSet(images)))
    else:
        source = open_source(data)
    if hasattr(TrainConfig, "of"):
        config = TrainConfig.of(source, preset, steps=10**6, changes=changes)
    else:  # version 0.1.0, beside which ours is timed
        config = TrainConfig.from_preset(data, source.fingerprint, preset, steps=10**6)
    trainer = Trainer(config, source)
    (begin,) = (s.begin for s in trainer.recipe.stages if s.name == stage)
    trainer.steps_done = round(begin * config.steps)
    return trainer


def cycle(trainer: Trainer) -> None:
    """So many steps that each has its share of the gradient penalty."""
    recipe = trainer.recipe
    for _ in range(recipe.penalty.interval if hasattr(recipe, "penalty") else recipe.penalty_interval):
        trainer.step()


class CyclesElsewhere:
    """`cycle` at each call, of a trainer in another Python, whose led_fast may be of another version."""

    def __init__(self, python: Path, data: str, preset: str, stage: str) -> None:
        self._process = subprocess.Popen(
            [python, "-P", __file__, data, preset, stage],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            cwd="/",  # where no folder of sources is imported
        )

    def __call__(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write("\n")
        if not self._process.stdout.readline():
            raise RuntimeError(f"the process of the other led_fast ended with {self._process.wait()}")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


if __name__ == "__main__":
    torch.set_num_threads(1)
    trainer = trainer_of(*sys.argv[1:])
    for _ in sys.stdin:
        cycle(trainer)
        print(flush=True)
