"""Log densities of a table's rows, their ranks, and the columns that make a row odd."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from led_fast.data.tables import Column
from led_fast.density import DensityModel, eval_mode
from led_fast.evaluation.cells import POINTS_AT_A_TIME, Cells, chunks, log_mean_density
from led_fast.random_state import seeded
from led_fast.surroundings import usual

_SEED = 0
_NOTABLE = 1.0  # nats: a smaller rise says nothing


@dataclass(frozen=True)
class OddColumn:
    """A column that makes a row odd.

    Attributes:
        name: of the column.
        value: of the row in it.
        rise: of the log density when draws replace the value, in nats; infinite where only these are possible.
    """

    name: str
    value: float
    rise: float


@dataclass(frozen=True)
class OddRow:
    """One of the strangest rows, `row` counted from 0, and the columns that make it odd, the oddest first."""

    row: int
    columns: tuple[OddColumn, ...]


@dataclass(frozen=True)
class TableScores:
    """Densities of rows, in their own order.

    Attributes:
        log_density: in nats, (n,) float64; -inf where a row is impossible.
        rank: 1 for the densest, (n,) int64; equally dense rows share the first of their ranks.
        odd: the strangest rows, the strangest first.
    """

    log_density: Tensor
    rank: Tensor
    odd: list[OddRow]


@usual()
@torch.no_grad()
def score_rows(
    model: DensityModel,
    rows: Tensor,
    columns: Sequence[Column],
    explain: int = 100,
    replacements: int = 16,
) -> TableScores:
    """Scores rows by their log density, in the data's own units, and explains the strangest.

    The density of a row is the mean over the cell that its discrete values stand for, see `Cells`. Column j makes a row
    odd if the row would be denser with another value there, by 1 nat or more:
    `rise_j = log 1/m Σ_i p(x with r_ij for x_j) - log p(x)`, r_ij the j-th coordinates of m fixed generator draws.
    Where two columns contradict each other, each of them is named. Where two are impossible, each by itself, no single
    replacement helps, and none is.

    Args:
        model: in the data's coordinates.
        rows: (n, D), float64, as in the file, not dequantised; may be mapped from it, because chunks of it are read.
        columns: the D columns.
        explain: number of the strangest rows to explain; each takes D × `replacements` evaluations. Of equally dense
            ones the first come first.
        replacements: m.

    Raises:
        InputError: a row's log density is NaN or +inf; names the first such row, counted from 1.

    Example:
        >>> scores = score_rows(model, rows, source.columns, explain=10)  # doctest: +SKIP
        >>> [column.name for column in scores.odd[0].columns]  # doctest: +SKIP
        ['pressure', 'speed']
    """
    device, cells = model.log_normalizer.device, Cells(columns)
    with eval_mode(model.critic, model.generator):
        log_density = cells.log_density(model.log_prob, rows, device)
        strangest = log_density.argsort(stable=True)[:explain]
        with seeded(_SEED, device):
            draws = model.sample(replacements).double().cpu()
        odd = []
        for part in chunks(len(strangest), POINTS_AT_A_TIME // replacements):
            index = strangest[part]
            rises = _rise(model, cells, rows[index], log_density[index], draws)
            odd += [
                _odd_row(i, rows[i], rise, columns) for i, rise in zip(index.tolist(), rises, strict=True)
            ]
    rank = torch.searchsorted((-log_density).sort().values, -log_density) + 1
    return TableScores(log_density, rank, odd)


def _rise(model: DensityModel, cells: Cells, rows: Tensor, log_density: Tensor, draws: Tensor) -> Tensor:
    """Rise of the log density when draws (m, D) replace each column in turn: (n, D)."""
    m, dims = draws.shape
    points = cells.spread(rows)[:, torch.arange(m, device="cpu") % cells.points]
    rises = torch.empty(len(rows), dims, dtype=torch.float64, device="cpu")
    for j in range(dims):
        replaced = points.clone()
        replaced[:, :, j] = draws[:, j]
        rises[:, j] = log_mean_density(model.log_prob, replaced, model.log_normalizer.device) - log_density
    return rises  # NaN where the row is impossible before and after, which no comparison takes for a rise


def _odd_row(index: int, row: Tensor, rise: Tensor, columns: Sequence[Column]) -> OddRow:
    order = rise.argsort(descending=True, stable=True).tolist()
    odd = (OddColumn(columns[j].name, row[j].item(), rise[j].item()) for j in order if rise[j] >= _NOTABLE)
    return OddRow(index, tuple(odd))
