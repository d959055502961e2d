"""Log-determinant and inverse of matrices by one factorisation, with derivatives of any order in both modes."""

from typing import Any

import torch
from torch import Tensor
from torch.linalg import solve_triangular

from led_fast.ops._autograd import forward_mode, in_transform, is_plain, not_differentiable

_MOST_SMALL = 16  # rows: a batch of larger ones is LAPACK's
_small_op = torch.ops.led_fast.small_inverse.default
not_differentiable(_small_op)


def log_abs_det(matrix: Tensor) -> Tensor:
    """`log|det|` of square matrices (..., n, n), -inf where one is singular: (...)."""
    if in_transform():
        if not forward_mode():
            return torch.linalg.slogdet(matrix).logabsdet
        # slogdet's tangents have no derivatives of their own: torch returns 0 for them.
        return _of_factors(torch.linalg.lu_factor_ex(matrix).LU)
    if torch.is_grad_enabled() and matrix.requires_grad:
        return _Factorised.apply(matrix)[0]
    return factorised(matrix)[0] if _is_small(matrix) else _of_factors(torch.linalg.lu_factor_ex(matrix).LU)


def log_abs_det_and_inverse(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """`log|det|` of square matrices (..., n, n), and their inverses transposed.

    That of a singular one is -inf; its inverse is not finite. Nothing is checked, because a GPU would have to be
    waited for.
    """
    if in_transform():
        return log_abs_det(matrix), torch.linalg.inv_ex(matrix).inverse.mT
    if torch.is_grad_enabled() and matrix.requires_grad:
        return _Factorised.apply(matrix)
    return factorised(matrix)


def factorised(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """As `log_abs_det_and_inverse`, without derivatives."""
    if _is_small(matrix):
        return _small_op(matrix)
    factors, pivots, _ = torch.linalg.lu_factor_ex(matrix)
    # W⁻ᵀ = P L⁻ᵀ U⁻ᵀ: solved from the right, in half the time of lu_solve.
    permutation, _, _ = torch.lu_unpack(factors, pivots, unpack_data=False)
    transposed = factors.mT
    half = solve_triangular(transposed, permutation, upper=True, left=False, unitriangular=True)
    return _of_factors(factors), solve_triangular(transposed, half, upper=False, left=False)


class _Factorised(torch.autograd.Function):
    """Both, and of both the gradient by the inverse alone: `d log|det W| = <W⁻ᵀ, dW>`, `d W⁻ᵀ = -W⁻ᵀ dWᵀ W⁻ᵀ`.

    What backward needs is an output, so that its own derivatives, of any order, follow by themselves.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> tuple[Tensor, Tensor]:
        logs, inverse = factorised(matrix)
        ctx.save_for_backward(inverse)
        ctx.set_materialize_grads(False)
        return logs, inverse

    @staticmethod
    def backward(ctx: Any, of_log: Tensor | None, of_inverse: Tensor | None) -> Tensor | None:
        (inverse,) = ctx.saved_tensors
        gradient = None
        if of_log is not None:
            gradient = of_log[..., None, None] * inverse
        if of_inverse is not None:
            through = inverse @ of_inverse.mT @ inverse
            gradient = -through if gradient is None else gradient - through
        return gradient


def _is_small(matrix: Tensor) -> bool:
    return matrix.is_cpu and 0 < matrix.shape[-1] <= _MOST_SMALL and is_plain(matrix)


def _of_factors(factors: Tensor) -> Tensor:
    return factors.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)
