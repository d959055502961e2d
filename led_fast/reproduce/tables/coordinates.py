"""The coordinates that a rival is fitted in: standardised columns, or each of them made normal first."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from led_fast.flows import Marginal
from led_fast.reproduce.tables.splits import Rows

Coordinates = Callable[[np.ndarray], tuple[Tensor, Tensor]]
"""Rows (n, D) in data units -> (n, D) and the log |det| of that map (n,), both float64."""


def standardized(rows: Rows) -> Coordinates:
    """Each column less its mean, over the standard deviation that it has with its noise."""
    shift, scale = rows.values.mean(axis=0), _scale(rows)
    log_det = torch.tensor(-np.log(scale).sum())

    def forward(x: np.ndarray) -> tuple[Tensor, Tensor]:
        return torch.from_numpy((x - shift) / scale), log_det.expand(len(x))

    return forward


def after_marginal(rows: Rows) -> Coordinates:
    """Standardised, then backward through the fitted layer that LED's flow ends with."""
    standardize = standardized(rows)
    marginal = Marginal.fit(standardize(rows.values)[0], torch.from_numpy(rows.steps / _scale(rows)))

    @torch.no_grad()
    def forward(x: np.ndarray) -> tuple[Tensor, Tensor]:
        u, log_det = standardize(x)
        t, log_det_marginal = marginal.inverse(u)
        return t, log_det + log_det_marginal

    return forward


def _scale(rows: Rows) -> np.ndarray:
    return np.sqrt(rows.values.var(axis=0) + np.square(rows.steps) / 12)
