"""The log-determinant of matrices, with derivatives of any order in both modes."""

import torch
from torch import Tensor

from led_fast.ops._autograd import forward_mode


def log_abs_det(matrix: Tensor) -> Tensor:
    """`log|det|` of square matrices (..., n, n), -inf where one is singular: (...)."""
    if not forward_mode():
        return torch.linalg.slogdet(matrix).logabsdet
    # slogdet's tangents have no derivatives of their own: torch returns 0 for them.
    factors, _, _ = torch.linalg.lu_factor_ex(matrix)
    return factors.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)
