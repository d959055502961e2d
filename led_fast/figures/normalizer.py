"""The estimated normaliser against the number of samples (the paper's Figure 7)."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
from matplotlib.figure import Figure

from led_fast.figures.style import BLUE, STYLE, VERMILION, add_note, write_figure


class NormalizerPanel(NamedTuple):
    """One model at one moment of its training.

    Attributes:
        title: which.
        samples: numbers of samples, ascending.
        mean: of the repeats' α̂ over the exact α, for each number.
        deviation: their standard deviation.
        caption: diagnostics of the largest number of samples.
    """

    title: str
    samples: Sequence[int]
    mean: Sequence[float]
    deviation: Sequence[float]
    caption: str


def normalizer_figure(path: Path, rows: Sequence[Sequence[NormalizerPanel]], note: str = "") -> None:
    """Writes a PNG: error bars of 1σ around the mean of α̂/α, beside the exact 1 by quadrature."""
    with matplotlib.rc_context(STYLE):
        columns = len(rows[0])
        figure = Figure(figsize=(2.9 * columns, 2.3 * len(rows)), dpi=110, layout="constrained")
        grid = figure.subplots(len(rows), columns, sharex=True, sharey=True, squeeze=False)
        for axes_row, panels in zip(grid, rows, strict=True):
            for axes, panel in zip(axes_row, panels, strict=True):
                axes.axhline(1, color=VERMILION, lw=1, linestyle="--", label="quadrature")
                axes.errorbar(
                    panel.samples, panel.mean, panel.deviation, color=BLUE, fmt="o-", ms=3, lw=1, capsize=2
                )
                axes.set(title=panel.title, xscale="log", ylim=(-0.5, 2.5))
                axes.text(0.97, 0.04, panel.caption, transform=axes.transAxes, fontsize=7.5, ha="right")
        for axes in grid[-1]:
            axes.set_xlabel("number of samples")
        for axes in grid[:, 0]:
            axes.set_ylabel(r"$\hat\alpha / \alpha$")
        grid[0, 0].legend(loc="upper right")
        add_note(figure, note)
        write_figure(figure, path)
