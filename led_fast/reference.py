"""Every operator in a few lines of plain PyTorch: the oracle of the tests, the baseline of the benchmarks.

No checks, no kernels: read this file to learn what an operator computes.
"""

import math

import torch
from torch import Tensor


def soft_relu(
    x: Tensor, alpha: float = 5.8, beta: float = 1.0, u0: float = 0.0, t0: float | None = None
) -> tuple[Tensor, Tensor]:
    """`L(x) = log(e^{alpha v} + e^{beta v}) / alpha - t0` with `v = x - u0`, and `Σ log L'(x)` per sample (Eq. 10-11)."""
    t0 = math.log(2) / alpha if t0 is None else t0
    v = x - u0
    y = torch.logaddexp(alpha * v, beta * v) / alpha - t0
    slope = beta / alpha + (1 - beta / alpha) * torch.sigmoid((alpha - beta) * v)
    per_element = slope.log().unsqueeze(-1).flatten(1)
    return y, per_element.sum(1, dtype=torch.float64 if x.dtype == torch.float64 else torch.float32)
