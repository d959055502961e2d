"""Spearman's rank correlation."""

import torch
from torch import Tensor


def rank_correlation(rows: Tensor) -> Tensor:
    """Rank correlation of every pair of columns of (n, D), in [-1, 1]: (D, D) float64; 0 for a constant column.

    Equal values share the mean of their ranks. Outliers and monotone changes of a column's scale do not move it.
    """
    columns = rows.double().T.contiguous()
    ordered = columns.sort(dim=1).values
    ranks = torch.searchsorted(ordered, columns) + torch.searchsorted(ordered, columns, right=True)
    centred = ranks.double() - ranks.double().mean(1, keepdim=True)
    norm = centred.norm(dim=1, keepdim=True)
    unit = torch.where(norm > 0, centred / norm, 0.0)
    return unit @ unit.T
