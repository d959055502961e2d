"""The distribution of each column: data beside samples."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from torch import Tensor

from led_fast.data.tables import Column
from led_fast.figures.style import BLUE, GREY, STYLE, VERMILION, add_note, write_figure

_TAIL = 0.005  # of the data on either side, that the axes may cut off
_ROOM = 0.3  # of the width between, that the axes reach beyond it
_MOST_WIDTHS = 10.0  # of the middle half of the data, that the axes reach beyond it
_BINS = 40
_NAME = 14  # characters


class Window(NamedTuple):
    """What an axis shows of a column: from `low` to `high`, in bars of `width`."""

    low: float
    high: float
    width: float

    def outside(self, values: Tensor) -> float:
        """Share of values that the axis does not show."""
        return ((values < self.low) | (values > self.high)).double().mean().item()


def marginals_figure(
    path: Path, data: Tensor, samples: Tensor, columns: Sequence[Column], note: str = ""
) -> None:
    """Writes a PNG of every column's distribution, data beside samples, under the column's name.

    Args:
        path: the file to write.
        data: rows, (n, D), n ≥ 1.
        samples: draws, (m, D), m ≥ 1.
        columns: the D columns.
        note: a line over the figure.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> from led_fast.data.tables import describe, table_of
        >>> rows = torch.randn(500, 2, dtype=torch.float64)
        >>> columns, _, _ = describe(table_of(rows.numpy(), names=["a", "b"]))
        >>> from led_fast.figures import marginals_figure
        >>> path = Path(tempfile.mkdtemp()) / "columns.png"
        >>> marginals_figure(path, rows, rows, columns)
        >>> path.exists()
        True
    """
    count = len(columns)
    across = min(count, max(3, math.ceil(math.sqrt(1.6 * count))))
    down = -(-count // across)
    side = 4.4 if count == 1 else 1.5
    with matplotlib.rc_context(STYLE):
        figure = Figure(
            figsize=(max(4.4, side * across), side * 0.8 * down + 0.9), dpi=130, layout="constrained"
        )
        grid = figure.subplots(down, across, squeeze=False).flatten()
        cut = 0.0
        for j, (axes, column, name) in enumerate(zip(grid, columns, short_names(columns), strict=False)):
            window = window_of(data[:, j], column)
            cut = max(cut, window.outside(data[:, j]), window.outside(samples[:, j]))
            draw_marginal(axes, data[:, j], samples[:, j], column, window)
            axes.set_title(name, fontsize=9 if count == 1 else 7.5, parse_math=False)
            axes.tick_params(labelsize=8 if count == 1 else 6)
        for axes in grid[count:]:
            axes.set_axis_off()
        legend = figure.legend(
            handles=legend_handles(), loc="outside lower center", ncols=2, title=cut_note(cut)
        )
        legend.get_title().set(color=GREY, fontsize=8)
        add_note(figure, note)
        write_figure(figure, path)


def window_of(data: Tensor, column: Column) -> Window:
    """The window of a column: all of the data, or without far outliers, which would squeeze everything else."""
    data = data.double()
    ordered = data.sort().values
    at = [round(share * (len(data) - 1)) for share in (_TAIL, 0.25, 0.75, 1 - _TAIL)]
    inner_low, first_quarter, last_quarter, inner_high = ordered[at].tolist()
    least, most = data.min().item(), data.max().item()
    if inner_low == inner_high:
        inner_low, inner_high = least, most
    room = _ROOM * (inner_high - inner_low)
    low, high = max(least, inner_low - room), min(most, inner_high + room)
    if (half := last_quarter - first_quarter) > 0:
        low = max(low, first_quarter - _MOST_WIDTHS * half)
        high = min(high, last_quarter + _MOST_WIDTHS * half)
    if not column.discrete:
        pad = 0.03 * (high - low) or 0.5
        return Window(low - pad, high + pad, (high - low + 2 * pad) / _BINS)
    first, last = (round((end - column.offset) / column.step) for end in (low, high))
    levels = -(-(last - first + 1) // (2 * _BINS))  # a bar, so that each has as many
    bars = -(-(last - first + 1) // levels)
    start = column.offset + (first - 0.5) * column.step
    return Window(start, start + bars * levels * column.step, levels * column.step)


def draw_marginal(axes: Axes, data: Tensor, samples: Tensor, column: Column, window: Window) -> None:
    """Bars of data under the outline of samples, both as shares of all rows."""
    bars = round((window.high - window.low) / window.width)
    edges = torch.linspace(window.low, window.high, bars + 1, dtype=torch.float64, device="cpu").tolist()
    axes.stairs(_shares(data, edges), edges, fill=True, color=BLUE, alpha=0.45)
    axes.stairs(_shares(samples, edges), edges, color=VERMILION, linewidth=0.9)
    axes.set(xlim=(window.low, window.high), yticks=[])
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)


def _shares(values: Tensor, edges: list[float]) -> list[float]:
    """Share of all values between each pair of edges."""
    return (
        torch.histogram(values.double(), torch.tensor(edges, dtype=torch.float64, device="cpu")).hist
        / len(values)
    ).tolist()


def legend_handles() -> list[Patch | Line2D]:
    """Keys of data and samples, for a figure's legend."""
    return [Patch(color=BLUE, alpha=0.45, label="data"), Line2D([], [], color=VERMILION, label="samples")]


def cut_note(share: float) -> str:
    """Says how much of a column lies outside of the axes; nothing where all of it is shown."""
    if share == 0:
        return ""
    return f"axes without far outliers: up to {100 * share:.2g} % of a column's values lie outside"


def short_names(columns: Sequence[Column]) -> list[str]:
    """Long names cut in the middle; by number, counted from 1, where that leaves no difference between two."""
    names = [_cut(column.name) for column in columns]
    return [name if names.count(name) == 1 else f"{i}: {name}" for i, name in enumerate(names, 1)]


def _cut(name: str) -> str:
    return name if len(name) <= _NAME else f"{name[:7]}…{name[-6:]}"
