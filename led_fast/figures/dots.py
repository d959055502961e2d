"""One row a variant, one dot a seed: what an ablation changes, and how far seeds differ anyway."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
from matplotlib.figure import Figure

from led_fast.figures.style import BLUE, GREY, STYLE, VERMILION, add_note, write_figure


class DotColumn(NamedTuple):
    """A quantity.

    Attributes:
        title: its name.
        values: for each variant, one number a seed; None where there is none.
        scale: of the axis, "linear" or "log".
        target: the best value that it can have, None where there is none.
        most: larger values are drawn as arrows there, so that one does not squeeze all others; None: no limit.
    """

    title: str
    values: Sequence[Sequence[float | None]]
    scale: str = "linear"
    target: float | None = None
    most: float | None = None


def dots_figure(path: Path, variants: Sequence[str], columns: Sequence[DotColumn], note: str = "") -> None:
    """Writes a PNG with the variants from top to bottom; the first is the one that the others are held against."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(
            figsize=(3 + 2.4 * len(columns), 1 + 0.27 * len(variants)), dpi=110, layout="constrained"
        )
        axes_row = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
        for axes, column in zip(axes_row, columns, strict=True):
            if column.target is not None:
                axes.axvline(column.target, color=VERMILION, lw=0.8, linestyle="--")
            for i, values in enumerate(column.values):
                for value in values:
                    if value is not None:
                        beyond = column.most is not None and value > column.most
                        marker = ">" if beyond else "o"
                        x = column.most if beyond else value
                        axes.plot(x, i, marker, color=BLUE, markersize=4, alpha=0.6, lw=0)
            for i in range(len(variants)):
                axes.axhline(i, color=GREY, lw=0.3, alpha=0.5, zorder=0)
            axes.set(title=column.title, xscale=column.scale)
        axes_row[0].set(yticks=range(len(variants)), yticklabels=variants, ylim=(len(variants) - 0.5, -0.5))
        add_note(figure, note)
        write_figure(figure, path)
