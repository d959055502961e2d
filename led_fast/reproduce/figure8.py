"""Figure 8: samples on the grid for generators of several widths and depths."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from led_fast.data import open_source
from led_fast.figures.points import Panel, points_figure
from led_fast.models import PointsGeneratorConfig
from led_fast.reproduce.cell import Cell, Finished
from led_fast.reproduce.content import results_by_variant
from led_fast.reproduce.experiment import Experiment
from led_fast.reproduce.led import led_cell
from led_fast.reproduce.quality import mixture_source
from led_fast.reproduce.text import diverged_note, markdown_table, spread
from led_fast.training import TrainConfig

_DATA = "grid"
_FEATURES, _BLOCKS, _STEPS = (2, 4, 8), (1, 2, 4), 1500
_QUICK_FEATURES, _QUICK_BLOCKS, _QUICK_STEPS = (2, 4), (1, 2), 30


def cells(seeds: int, quick: bool) -> list[Cell]:
    """The default recipe with a single normal as base, so that all modes are the layers' work."""
    features = _QUICK_FEATURES if quick else _FEATURES
    blocks = _QUICK_BLOCKS if quick else _BLOCKS
    steps = _QUICK_STEPS if quick else _STEPS
    made = []
    for seed in range(seeds):
        config = TrainConfig.of(open_source(_DATA), seed=seed, steps=steps)
        for b in blocks:
            for f in features:
                generator = PointsGeneratorConfig(components=1, features=f, blocks=b)
                made.append(
                    led_cell(f"{_shape(b, f)}-{seed}", config.changed({"model.generator": generator}))
                )
    return made


def markdown(content: dict[str, Any]) -> str:
    """Modes and % within 3σ, blocks down, features across; over all seeds."""
    variants = results_by_variant(content)
    shapes = [name.removesuffix("f").removeprefix("shape-").split("b-") for name in variants]
    blocks, features = sorted({int(b) for b, _ in shapes}), sorted({int(f) for _, f in shapes})
    rows = [[_blocks(b), *[_quality(variants[_shape(b, f)]) for f in features]] for b in blocks]
    return markdown_table(["", *[f"{f} features" for f in features]], rows)


def draw(path: Path, results: Sequence[Finished], note: str) -> None:
    """Samples of the first seed, in the order of the table."""
    _, truth = mixture_source(_DATA)
    first = {_variant(result): result for result in reversed(results)}
    blocks, features = sorted({b for b, _ in first}), sorted({f for _, f in first})
    rows = [(truth.centers, [_panel(f, first[b, f]) for f in features]) for b in blocks]
    points_figure(path, rows, [_blocks(b) for b in blocks], note=note)


def _panel(features: int, finished: Finished) -> Panel:
    if "diverged" in finished.result:
        return Panel(f"{features} features: diverged", None)
    samples = torch.from_numpy(np.load(finished.folder / "samples.npy"))
    return Panel(f"{features} features: {_quality([finished.result])}", samples)


def _quality(reports: Sequence[dict[str, Any]]) -> str:
    good = [report for report in reports if "diverged" not in report]
    if not good:
        return "diverged"
    modes = spread([report["modes"] for report in good], 0 if len(good) == 1 else 1)
    high = spread([report["high_quality_percent"] for report in good], 1)
    return f"{modes}/{good[0]['modes_total']}, {high} %{diverged_note(reports)}"


def _blocks(number: int) -> str:
    return "1 block" if number == 1 else f"{number} blocks"


def _shape(blocks: int, features: int) -> str:
    return f"shape-{blocks}b-{features}f"


def _variant(finished: Finished) -> tuple[int, int]:
    generator = finished.cell.settings["config"]["model"]["generator"]
    return generator["blocks"], generator["features"]


FIGURE_8 = Experiment("Figure 8: width and depth of the generator", 1, cells, markdown, draw)
