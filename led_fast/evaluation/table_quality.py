"""How much samples of a table look like rows that a model has not seen."""

import torch
from torch import Tensor

from led_fast.evaluation.rank_correlation import rank_correlation


def kolmogorov_smirnov(first: Tensor, second: Tensor) -> Tensor:
    """The largest difference between the distribution functions of each column of (n, D) and (m, D): (D,) float64.

    0 where they are equal, 1 where they share nothing. Two draws of n and m values of one distribution differ by about
    `.87 √(1/n + 1/m)`.
    """
    first, second = first.double().T.contiguous(), second.double().T.contiguous()
    both = torch.cat([first, second], dim=1)
    shares = [
        torch.searchsorted(part.sort(dim=1).values, both, right=True).double() / part.shape[1]
        for part in (first, second)
    ]
    return (shares[0] - shares[1]).abs().max(dim=1).values


def correlation_difference(first: Tensor, second: Tensor) -> float:
    """Root mean square difference of the rank correlations of (n, D) and (m, D), over pairs of columns; 0 for D = 1."""
    dims = first.shape[1]
    if dims == 1:
        return 0.0
    squares = (rank_correlation(first) - rank_correlation(second)).square().sum().item()
    return (squares / (dims * (dims - 1))) ** 0.5
