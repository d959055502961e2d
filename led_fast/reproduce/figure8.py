"""Figure 8: samples on the grid for generators of several widths and depths."""

from collections.abc import Collection, Sequence
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from led_fast.data import open_source
from led_fast.figures.points import Panel, points_figure
from led_fast.reproduce.cell import Cell, Finished
from led_fast.reproduce.content import results_by_variant
from led_fast.reproduce.experiment import Experiment
from led_fast.reproduce.led import led_cell
from led_fast.reproduce.quality import mixture_source
from led_fast.reproduce.text import diverged_note, markdown_table, spread
from led_fast.training import TrainConfig

_Result = TypeVar("_Result")

_DATA = "grid"
_STEPS, _QUICK_STEPS = 1500, 30
_SHAPES = {  # features and blocks, by preset
    "paper": ((2, 8, 32, 256), (2, 4, 8)),
    "default": ((2, 4, 8), (1, 2, 4)),
}
_QUICK_SHAPES = {"paper": ((2, 4), (1, 2)), "default": ((2, 4), (1, 2))}


def cells(seeds: int, quick: bool) -> list[Cell]:
    """The paper's family, and the default with a single normal as base, so that all modes are the layers' work."""
    made = []
    for seed in range(seeds):
        for preset, (features, blocks) in (_QUICK_SHAPES if quick else _SHAPES).items():
            steps = _QUICK_STEPS if quick else _STEPS
            config = TrainConfig.of(open_source(_DATA), preset, seed, steps)
            for b, f in product(blocks, features):
                shape = {"features": f, "blocks": b, "components": 1}
                changes = {f"model.generator.{name}": value for name, value in shape.items()}
                made.append(led_cell(f"{_variant(preset, b, f)}-{seed}", config.changed(changes)))
    return made


def markdown(content: dict[str, Any]) -> str:
    """Modes and % within 3σ, blocks down, features across; a table a preset, over all seeds."""
    parts = []
    for preset, by_shape in _by_preset(results_by_variant(content)).items():
        blocks, features = _sides(by_shape)
        rows = [[_blocks(b), *[_quality(by_shape[b, f]) for f in features]] for b in blocks]
        parts.append(markdown_table([f"`{preset}`", *[f"{f} features" for f in features]], rows))
    return "\n".join(parts)


def draw(path: Path, results: Sequence[Finished], note: str) -> None:
    """Samples of the first seed, in the order of the tables."""
    _, truth = mixture_source(_DATA)
    first = {result.cell.name.rsplit("-", 1)[0]: result for result in reversed(results)}
    rows, labels = [], []
    for preset, by_shape in _by_preset(first).items():
        blocks, features = _sides(by_shape)
        rows += [(truth.centers, [_panel(f, by_shape[b, f]) for f in features]) for b in blocks]
        labels += [f"{preset}, {_blocks(b)}" for b in blocks]
    points_figure(path, rows, labels, note=note)


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


def _variant(preset: str, blocks: int, features: int) -> str:
    return f"shape-{preset}-{blocks}b-{features}f"


def _by_preset(variants: dict[str, _Result]) -> dict[str, dict[tuple[int, int], _Result]]:
    """What belongs to each shape, (blocks, features), of each preset, in the order of `_SHAPES`."""
    found: dict[str, dict[tuple[int, int], _Result]] = {preset: {} for preset in _SHAPES}
    for name, result in variants.items():
        _, preset, blocks, features = name.split("-")
        found[preset][int(blocks.removesuffix("b")), int(features.removesuffix("f"))] = result
    return {preset: by_shape for preset, by_shape in found.items() if by_shape}


def _sides(shapes: Collection[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """Numbers of blocks and of features, ascending."""
    return sorted({b for b, _ in shapes}), sorted({f for _, f in shapes})


FIGURE_8 = Experiment("Figure 8: width and depth of the generator", 1, cells, markdown, draw)
