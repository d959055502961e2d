"""Densities of a table's raw rows, whose discrete values stand for cells."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from led_fast.data.tables import Column
from led_fast.errors import InputError

LogDensity = Callable[[Tensor], Tensor]

POINTS_AT_A_TIME = 2048
_SEED = 0


class Cells:
    """The cells of raw rows, as points that cover each of them evenly.

    A discrete column's value stands for a cell, one step wide around it, and the density of a row is the mean over its
    cell: `log 1/K Σ_k p(x + step u_k)` with K fixed points u_k of [-½, ½]^D (of a scrambled Sobol
    sequence, in the middles of K strata of each column). A value off
    the lattice counts as the nearest one on it. Where no column is discrete, the one point is the row itself.

    Args:
        columns: the D columns.
        draws: K, a power of 2.
    """

    def __init__(self, columns: Sequence[Column], draws: int = 8) -> None:
        step = torch.tensor([column.step for column in columns], dtype=torch.float64, device="cpu")
        self.discrete = step > 0
        self.step = torch.where(self.discrete, step, 1.0)
        self.offset = torch.tensor([c.offset for c in columns], dtype=torch.float64, device="cpu")
        self.points = draws if bool(self.discrete.any()) else 1
        unit = SobolEngine(len(columns), scramble=True, seed=_SEED).draw(self.points, dtype=torch.float64)
        unit = ((unit * self.points).floor() + 0.5) / self.points  # each column alone sees the midpoint rule
        self.noise = torch.where(self.discrete, (unit - 0.5) * self.step, 0.0)

    def centres(self, rows: Tensor) -> Tensor:
        """Rows (n, D) with discrete columns rounded to their lattices, float64."""
        rows = rows.double()
        return torch.where(
            self.discrete, ((rows - self.offset) / self.step).round() * self.step + self.offset, rows
        )

    def spread(self, rows: Tensor) -> Tensor:
        """Points of the cells of rows (n, D): (n, points, D)."""
        return self.centres(rows)[:, None] + self.noise

    def log_density(self, log_prob: LogDensity, rows: Tensor, device: torch.device) -> Tensor:
        """Log density of rows (n, D), in nats: (n,) float64 on the CPU. It depends on nothing but the row.

        Args:
            log_prob: of points (B, D) on a device; (B,).
            rows: as in the file; may be mapped from it, because chunks of it are read.
            device: where `log_prob` computes.

        Raises:
            InputError: a row's log density is NaN or +inf; names the first such row, counted from 1.
        """
        result = torch.empty(len(rows), dtype=torch.float64, device="cpu")
        for part in chunks(len(rows), POINTS_AT_A_TIME // self.points):
            result[part] = log_mean_density(log_prob, self.spread(rows[part]), device)
        check_log_density(result, rows)
        return result


def log_mean_density(log_prob: LogDensity, points: Tensor, device: torch.device) -> Tensor:
    """Log of the mean density of points (n, k, D) over k, (n,) float64 on the CPU; n k at most `POINTS_AT_A_TIME`.

    Always as many points are evaluated, because matrix products of other sizes round otherwise: so no row's result
    depends on how many others there are.
    """
    n, k, dims = points.shape
    flat = points.reshape(n * k, dims)
    padded = torch.cat([flat, flat[-1:].expand(POINTS_AT_A_TIME - n * k, dims)])
    values = log_prob(padded.to(device)).double().cpu()
    return values[: n * k].reshape(n, k).logsumexp(1) - math.log(k)


def check_log_density(log_density: Tensor, rows: Tensor, what: str = "row") -> None:
    """Refuses log densities (n,) of rows (n, D) that are NaN or +inf; -inf is a density of 0.

    Raises:
        InputError: names the first such row, counted from 1.
    """
    broken = log_density.isnan() | (log_density == math.inf)
    if broken.any():
        row = int(broken.int().argmax())
        shown = ", ".join(f"{value:.6g}" for value in rows[row, :8].tolist())
        more = ", …" if rows.shape[1] > 8 else ""
        raise InputError(
            f"{what} {row + 1} cannot be scored, because its log density is {log_density[row].item()}: [{shown}{more}]"
        )


def chunks(n: int, size: int) -> Iterator[slice]:
    """Slices of `size` that cover n rows."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))
