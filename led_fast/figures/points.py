"""A table of scatter plots: one model a cell, the same window in every cell of a row."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
from matplotlib.figure import Figure
from torch import Tensor

from led_fast.figures.style import STYLE, VERMILION, add_note, scatter, window_around, write_figure


class Panel(NamedTuple):
    """Samples (n, 2) under a title; None where there are none, so that the title says why."""

    title: str
    samples: Tensor | None


def points_figure(
    path: Path,
    rows: Sequence[tuple[Tensor, Sequence[Panel]]],
    row_labels: Sequence[str] = (),
    side: float = 2.2,
    note: str = "",
) -> None:
    """Writes a PNG.

    Args:
        path: the file to write.
        rows: for each row the centers of the true modes, (K, 2), marked by crosses, and its panels.
        row_labels: left of the rows.
        side: of a panel, in inches.
        note: a line over the figure.
    """
    columns = max(len(panels) for _, panels in rows)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(side * columns, (side + 0.25) * len(rows)), dpi=110, layout="constrained")
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for axes_row, (centers, panels) in zip(grid, rows, strict=True):
            window = window_around(centers)
            for axes in axes_row[len(panels) :]:
                axes.set_axis_off()
            for axes, panel in zip(axes_row, panels, strict=False):
                axes.plot(*centers.numpy().T, "+", color=VERMILION, markersize=4, markeredgewidth=0.7)
                if panel.samples is not None:
                    scatter(axes, panel.samples, window, panel.title)
                axes.set(
                    title=panel.title, xlim=window[:2], ylim=window[2:], box_aspect=1, xticks=[], yticks=[]
                )
        for axes, label in zip(grid[:, 0], row_labels, strict=False):
            axes.set_ylabel(label)
        add_note(figure, note)
        write_figure(figure, path)
