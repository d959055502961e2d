"""Speed: training steps on the fast operators against the same steps on their references in plain PyTorch."""

import time
from pathlib import Path
from typing import Any

from led_fast.data import open_source
from led_fast.ops import use_reference
from led_fast.reproduce.cell import Cell
from led_fast.reproduce.experiment import Experiment
from led_fast.reproduce.text import markdown_table
from led_fast.training import TrainConfig, Trainer

_PRESETS = ("default", "perpendicular", "paper")
_DATA = ("ring", "grid")
_STEPS, _ROUNDS = 10, 8
_QUICK_STEPS, _QUICK_ROUNDS = 2, 2


def cells(seeds: int, quick: bool) -> list[Cell]:
    """Every preset on both data sets."""
    steps, rounds = (_QUICK_STEPS, _QUICK_ROUNDS) if quick else (_STEPS, _ROUNDS)
    return [
        Cell(
            f"speed-{data}-{preset}",
            time_steps,
            {"data": data, "preset": preset, "steps": steps, "rounds": rounds},
        )
        for preset in _PRESETS
        for data in _DATA
    ]


def time_steps(folder: Path, data: str, preset: str, steps: int, rounds: int) -> dict[str, Any]:
    """Least time of a step on either kind of operators, in turns, so that other work on the machine hits both."""
    source = open_source(data)
    config = TrainConfig.of(source, preset, steps=(rounds + 1) * steps)
    trainers = {ops: Trainer(config, source) for ops in ("fast", "reference")}
    least = dict.fromkeys(trainers, float("inf"))
    for turn in range(rounds + 1):
        for ops, trainer in trainers.items():
            with use_reference(ops == "reference"):
                began = time.perf_counter()
                for _ in range(steps):
                    trainer.step()
                seconds = (time.perf_counter() - began) / steps
            if turn:  # the first one warms up
                least[ops] = min(least[ops], seconds)
    return {"fast_seconds": least["fast"], "reference_seconds": least["reference"]}


def markdown(content: dict[str, Any]) -> str:
    """Steps a second, and the ratio."""
    rows = []
    for name, cell in content["cells"].items():
        _, data, preset = name.split("-")
        fast, reference = cell["result"]["fast_seconds"], cell["result"]["reference_seconds"]
        rows.append(
            [data, f"`{preset}`", f"{1 / fast:.1f}", f"{1 / reference:.1f}", f"**{reference / fast:.2f}**"]
        )
    header = ["data", "preset", "steps/s, fast", "steps/s, reference", "ratio"]
    return (
        f"One thread; least time of a step, both in turns in one process.\n\n{markdown_table(header, rows)}"
    )


SPEED = Experiment("Speed of training", 0, cells, markdown, None, alone=True)
