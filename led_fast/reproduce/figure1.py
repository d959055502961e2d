"""Figure 1: the densities that critics learned, beside the truth and a kernel density estimate of samples."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from led_fast.figures.comparison import DensityRow, comparison_figure
from led_fast.reproduce.cell import Cell, Finished
from led_fast.reproduce.content import results_by_variant
from led_fast.reproduce.experiment import Experiment
from led_fast.reproduce.led import kernel_density_of
from led_fast.reproduce.quality import mixture_source
from led_fast.reproduce.table1 import DATA, preset_cell
from led_fast.reproduce.text import markdown_table, spread
from led_fast.training import RunDirectory, load_model

_PRESETS = ("paper", "default")


def cells(seeds: int, quick: bool) -> list[Cell]:
    """Both presets on both data sets: the same cells as Table 1's."""
    return [
        preset_cell(data, preset, seed, quick)
        for seed in range(seeds)
        for preset in _PRESETS
        for data in DATA
    ]


def markdown(content: dict[str, Any]) -> str:
    """KL of the critic's density and of the kernel density estimate."""
    rows = []
    for variant, reports in results_by_variant(content).items():
        data, preset = variant.split("-")
        kernels = [report["kde"] for report in reports if "kde" in report]
        rows.append(
            [
                data,
                f"`{preset}`",
                spread([report.get("kl_data_model") for report in reports], 4),
                spread([kernel["kl_data_model"] for kernel in kernels], 4),
                spread([kernel["width"] for kernel in kernels], 4),
            ]
        )
    header = ["", "preset", "KL(p* ‖ critic) / nats", "KL(p* ‖ kernel density) / nats", "kernel width"]
    return markdown_table(header, rows)


def draw(path: Path, results: Sequence[Finished], note: str) -> None:
    """The first seed's densities."""
    rows = []
    for result in results[: len(_PRESETS) * len(DATA)]:
        model, config, _ = load_model(RunDirectory(result.folder))
        _, truth = mixture_source(config.data)
        samples = torch.from_numpy(np.load(result.folder / "samples.npy"))
        rows.append(DensityRow(truth, model.log_prob, samples, kernel_density_of(result.folder).log_prob))
    comparison_figure(path, rows, note)


FIGURE_1 = Experiment("Figure 1: the learned density", 1, cells, markdown, draw)
