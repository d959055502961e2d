"""True density, samples, and two densities made from them, side by side (the paper's Figure 1)."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator
from torch import Tensor

from led_fast.data import GaussianMixture
from led_fast.figures.density import DEPTH, LogDensity, heat_map, on_pixels
from led_fast.figures.style import STYLE, add_note, scatter, window_around, write_figure

_PIXELS = 240  # along a side of each density


class DensityRow(NamedTuple):
    """One data set: the truth, the critic's log density, the generator's draws (n, 2), a KDE of such draws."""

    truth: GaussianMixture
    critic: LogDensity
    samples: Tensor
    kernel_density: LogDensity


def comparison_figure(path: Path, rows: Sequence[DensityRow], note: str = "") -> None:
    """Writes a PNG with a row of four panels a data set, all densities of a row on one colour scale."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(12.4, 3.1 * len(rows)), dpi=110, layout="constrained")
        for axes_row, row in zip(figure.subplots(len(rows), 4, squeeze=False), rows, strict=True):
            window = window_around(row.truth.centers)
            exact = on_pixels(row.truth.log_prob, window, _PIXELS)
            top = exact.max().item()
            true_axes, sample_axes, critic_axes, kernel_axes = axes_row
            heat_map(true_axes, exact, window, top, r"true density, $\log p^*(x)$ / nats")
            scatter(sample_axes, row.samples, window, "samples of the generator")
            heat_map(
                critic_axes,
                on_pixels(row.critic, window, _PIXELS),
                window,
                top,
                r"critic, $\log p_\theta(x)$",
            )
            image = heat_map(
                kernel_axes,
                on_pixels(row.kernel_density, window, _PIXELS),
                window,
                top,
                "kernel density of samples",
            )
            bar = figure.colorbar(image, ax=axes_row, extend="min", ticks=MultipleLocator(5), pad=0.01)
            bar.set_label(f"top {DEPTH:.0f} nats")
        add_note(figure, note)
        write_figure(figure, path)
