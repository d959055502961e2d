"""Pairs of columns: data beside samples."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import torch
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

from led_fast.data.tables import Column
from led_fast.evaluation.rank_correlation import rank_correlation
from led_fast.figures.marginals import (
    Window,
    cut_note,
    draw_marginal,
    legend_handles,
    marginals_figure,
    short_names,
    window_of,
)
from led_fast.figures.style import BLUE, GREY, STYLE, VERMILION, add_note, write_figure

MOST_COLUMNS = 6
_DOTS = 2000
_COPY, _REPEATS = 0.95, 0.8  # rank correlations


def pairs_figure(
    path: Path, data: Tensor, samples: Tensor, columns: Sequence[Column], note: str = ""
) -> None:
    """Writes a PNG of pairs of columns, data on the left and samples on the right, and on both diagonals the columns.

    Of more than six columns it shows those that `dependent_columns` chooses; see `marginals_figure` for all of them.
    One column is drawn by `marginals_figure` alone. Far outliers, which would squeeze everything else, lie outside of
    the axes; the figure says how many. Discrete columns are spread over their cells, so that dots do not hide dots.

    Args:
        path: the file to write.
        data: rows, (n, D), n ≥ 1, all finite, dequantised or not.
        samples: draws, (m, D), m ≥ 1, the same.
        columns: the D columns.
        note: a line over the figure.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> from led_fast.data.tables import describe, table_of
        >>> rows = torch.randn(500, 2, dtype=torch.float64)
        >>> columns, _, _ = describe(table_of(rows.numpy(), names=["a", "b"]))
        >>> from led_fast.figures import pairs_figure
        >>> path = Path(tempfile.mkdtemp()) / "pairs.png"
        >>> pairs_figure(path, rows, rows, columns)
        >>> path.exists()
        True
    """
    if len(columns) == 1:
        marginals_figure(path, data, samples, columns, note)
        return
    chosen = dependent_columns(data)
    names = short_names(columns)
    titles = [names[j] for j in chosen]
    shown = [columns[j] for j in chosen]
    data, samples = data[:, chosen].double(), samples[:, chosen].double()
    windows = [window_of(data[:, j], column) for j, column in enumerate(shown)]
    cut = max(w.outside(x[:, j]) for j, w in enumerate(windows) for x in (data, samples))
    side = 3.0 if len(shown) == 2 else 2.0 if len(shown) < 5 else 1.25
    with matplotlib.rc_context(STYLE):
        figure = Figure(
            figsize=(2 * side * len(shown) + 0.8, side * len(shown) + 0.9), dpi=130, layout="constrained"
        )
        left, right = figure.subfigures(1, 2, wspace=0.03, squeeze=False)[0]
        for part, values, color, title in (
            (left, data, BLUE, "data"),
            (right, samples, VERMILION, "samples"),
        ):
            _triangle(part, _spread(values, shown), color, title, (data, samples), shown, titles, windows)
        right.legend(handles=legend_handles(), loc="upper right", bbox_to_anchor=(0.98, 0.94))
        fewer = len(shown) < len(columns)
        remark = f"the {len(shown)} of {len(columns)} columns that depend most on each other" if fewer else ""
        add_note(figure, note)
        figure.supxlabel("; ".join(filter(None, (remark, cut_note(cut)))), color=GREY, fontsize=8)
        write_figure(figure, path)


def dependent_columns(data: Tensor, most: int = MOST_COLUMNS) -> list[int]:
    """The columns that depend most on each other, in the table's order; all of them if there are no more than `most`.

    The pair with the largest rank correlation, by magnitude, but near copies (above .95); then again and again the
    column with the largest mean to those that are chosen, less .3 if it repeats one of them (above .8).
    """
    dims = data.shape[1]
    if dims <= most:
        return list(range(dims))
    strength = rank_correlation(data).abs().fill_diagonal_(1)
    pairs = torch.where(strength > _COPY, -strength, strength).fill_diagonal_(-2)
    chosen = list(divmod(int(pairs.argmax()), dims))
    while len(chosen) < most:
        to_chosen = strength[:, chosen]
        value = to_chosen.mean(1) - 0.3 * (to_chosen.max(1).values > _REPEATS)
        value[chosen] = -2
        chosen.append(int(value.argmax()))
    return sorted(chosen)


def _triangle(
    figure: SubFigure,
    dots: Tensor,
    color: str,
    title: str,
    both: tuple[Tensor, Tensor],
    columns: Sequence[Column],
    titles: Sequence[str],
    windows: Sequence[Window],
) -> None:
    """One half of the figure: scatter plots below the diagonal, data and samples on it."""
    k, size = len(columns), 2.2 if len(columns) > 4 else 3.0
    grid = figure.subplots(k, k)
    figure.suptitle(title, color=color, fontsize=11, fontweight="bold")
    for i in range(k):
        for j in range(k):
            axes = grid[i, j]
            if j > i:
                axes.set_axis_off()
                continue
            if i == j:
                draw_marginal(axes, both[0][:, i], both[1][:, i], columns[i], windows[i])
            else:
                axes.plot(
                    dots[:, j].numpy(),
                    dots[:, i].numpy(),
                    ".",
                    color=color,
                    markersize=size,
                    alpha=0.4,
                    mew=0,
                )
                axes.set(xlim=windows[j][:2], ylim=windows[i][:2])
            axes.tick_params(labelsize=6, length=2, labelbottom=i == k - 1, labelleft=j == 0 and i > 0)
            axes.locator_params(nbins=4)
            if i == k - 1:
                axes.set_xlabel(titles[j], fontsize=7.5, parse_math=False)
            if j == 0:
                axes.set_ylabel(titles[i], fontsize=7.5, parse_math=False)


def _spread(values: Tensor, columns: Sequence[Column]) -> Tensor:
    """At most 2,000 rows, discrete columns spread evenly over their cells."""
    order = torch.Generator("cpu").manual_seed(0)
    rows = values[torch.randperm(len(values), generator=order, device="cpu")[:_DOTS]].clone()
    noise = torch.rand(rows.shape, generator=order, dtype=torch.float64, device="cpu") - 0.5
    for j, column in enumerate(columns):
        if column.discrete:
            cell = ((rows[:, j] - column.offset) / column.step).round()
            rows[:, j] = column.offset + (cell + noise[:, j]) * column.step
    return rows
