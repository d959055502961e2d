"""Trainers to be timed, in this process or in that of another installation.

``python bench/training_step.py DATA PRESET STAGE THREADS`` runs `cycle` for each line that it reads, and answers by a
line.
"""

import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from led_fast.data import open_source
from led_fast.data.images import ImageCollection, ImageSet, ImageSource
from led_fast.training import TrainConfig, Trainer


def trainer_of(
    data: str, preset: str, stage: str = "joint training", changes: dict[str, object] | None = None
) -> Trainer:
    """At the beginning of a stage of its training; `changes` to the preset, by dotted names."""
    if data == "table":
        source = table_source()
    elif data == "images":
        images = torch.randint(0, 256, (200, 1, 32, 32), dtype=torch.uint8)
        source = ImageSource("noise", ImageCollection(ImageSet(images)))
    else:
        source = open_source(data)
    # No step may be one of a calibration that has come to rest.
    if hasattr(TrainConfig, "of"):
        changes = {"recipe.calibration.ess": 0.0, **(changes or {})}
        config = TrainConfig.of(source, preset, steps=10**6, changes=changes)
    else:  # version 0.1.0, beside which ours is timed
        config = TrainConfig.from_preset(data, source.fingerprint, preset, steps=10**6)
        config = replace(config, recipe=replace(config.recipe, calibration_ess=0.0))
    trainer = Trainer(config, source)
    (begin,) = (s.begin for s in trainer.recipe.stages if s.name == stage)
    trainer.steps_done = round(begin * config.steps)
    return trainer


def table_source() -> Any:
    """20,000 rows of 16 columns that depend on each other."""
    from led_fast.data.tables import TableSource, read_table  # which version 0.1.0 has not

    random = np.random.default_rng(0)
    rows = np.tanh(random.normal(size=(20_000, 16)) @ random.normal(size=(16, 16))) + 0.1 * random.normal(
        size=(20_000, 16)
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.npy"
        np.save(path, rows)
        return TableSource("table", read_table(str(path)))


def steps_of(trainer: Trainer) -> int:
    """So many that each has its share of the gradient penalty.

    A run's small steps find their networks in the cache; so do all but the first of some that are taken together.
    """
    recipe = trainer.recipe
    interval = recipe.penalty.interval if hasattr(recipe, "penalty") else recipe.penalty_interval
    return interval if interval > 1 else 10


def cycle(trainer: Trainer) -> None:
    """Some steps."""
    for _ in range(steps_of(trainer)):
        trainer.step()


class CyclesElsewhere:
    """`cycle` at each call, of a trainer in another Python, whose led_fast may be of another version."""

    def __init__(self, python: Path, data: str, preset: str, stage: str, threads: int) -> None:
        self._process = subprocess.Popen(
            [python, "-P", __file__, data, preset, stage, str(threads)],
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
    *case, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    trainer = trainer_of(*case)
    for _ in sys.stdin:
        cycle(trainer)
        print(flush=True)
