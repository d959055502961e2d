"""Square linear maps `t -> W t` of rows, by the tensors that W is made of.

Log-determinants are of float64 for float64 and of float32 for all else; what is undone or pulled must be of that dtype.
Autocast is the caller's to switch off.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.linalg import solve_triangular

from led_fast.ops._sample_sums import log_dtype
from led_fast.ops.determinant import log_abs_det, log_abs_det_and_inverse


class Dense(NamedTuple):
    """W itself, (D, D): log|det W| and W⁻¹ cost O(D³)."""

    weight: Tensor

    def apply(self, t: Tensor, bias: Tensor) -> Tensor:
        """`t Wᵀ + bias`."""
        return torch.addmm(bias, t, self.weight.mT)

    def log_abs_det(self) -> Tensor:
        """`log|det W|`, 0-d."""
        return log_abs_det(_real(self.weight))

    def undo(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`t W⁻ᵀ`, and log|det W|."""
        logs, transposed = log_abs_det_and_inverse(_real(self.weight))
        return t @ transposed, logs

    def pull(self, score: Tensor) -> tuple[Tensor, Tensor]:
        """`score W⁻¹`, detached, and log|det W|."""
        logs, transposed = log_abs_det_and_inverse(_real(self.weight))
        return score @ transposed.detach().mT, logs


class Triangles(NamedTuple):
    """`W = P L U` (Kingma and Dhariwal 2018, Sec. 3.2): log|det W| costs O(D), what W⁻¹ does to a row O(D²).

    Attributes:
        factors: (D, D); L below its diagonal, whose own is 1, U above it, and log|U_ii| on it.
        signs: of U_ii, (D,).
        order: P: element i of the result is element `order[i]` of `L U t`, (D,).
    """

    factors: Tensor
    signs: Tensor
    order: Tensor

    def apply(self, t: Tensor, bias: Tensor) -> Tensor:
        """`t Wᵀ + bias`."""
        through = torch.addmm(t * self._scale(self.factors), t, self.factors.triu(1).mT)
        through = torch.addmm(through, through, self.factors.tril(-1).mT)
        return through.index_select(1, self.order) + bias.to(through.dtype)

    def log_abs_det(self) -> Tensor:
        """`log|det W|`, 0-d."""
        return _real(self.factors).diagonal().sum()

    def undo(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`t W⁻ᵀ`, and log|det W|."""
        lower, upper = self._solvable()
        through = t.index_select(1, self.order.argsort())
        through = solve_triangular(lower.mT, through, upper=True, left=False, unitriangular=True)
        through = solve_triangular(upper.mT, through, upper=False, left=False)
        return through.clone(), self.log_abs_det()  # the gradient needs the original

    def pull(self, score: Tensor) -> tuple[Tensor, Tensor]:
        """`score W⁻¹`, detached, and log|det W|."""
        with torch.no_grad():
            lower, upper = self._solvable()
            through = solve_triangular(upper, score, upper=True, left=False)
            through = solve_triangular(lower, through, upper=False, left=False, unitriangular=True)
            pulled = through.index_select(1, self.order)
        return pulled, self.log_abs_det()

    def _solvable(self) -> tuple[Tensor, Tensor]:
        """L and U, each with what solve_triangular does not read."""
        factors = _real(self.factors)
        return factors, torch.diagonal_scatter(factors, self._scale(factors))

    def _scale(self, factors: Tensor) -> Tensor:
        return self.signs * factors.diagonal().exp()


class LowRank(NamedTuple):
    """`W = I + U Vᵀ`, U and V (D, r): all costs O(D r + r³).

    By the matrix determinant lemma `det W = det C`, `C = I + Vᵀ U`, and by Woodbury's identity `W⁻¹ = I - U C⁻¹ Vᵀ`.

    Attributes:
        left: U.
        right: V.
    """

    left: Tensor
    right: Tensor

    def apply(self, t: Tensor, bias: Tensor) -> Tensor:
        """`t Wᵀ + bias`."""
        return torch.addmm(t + bias, t @ self.right, self.left.mT)

    def log_abs_det(self) -> Tensor:
        """`log|det W|`, 0-d."""
        return log_abs_det(_core(_real(self.left), _real(self.right)))

    def undo(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`t W⁻ᵀ`, and log|det W|."""
        left, right = _real(self.left), _real(self.right)
        logs, transposed = log_abs_det_and_inverse(_core(left, right))
        return torch.addmm(t, (t @ right) @ transposed, left.mT, alpha=-1), logs

    def pull(self, score: Tensor) -> tuple[Tensor, Tensor]:
        """`score W⁻¹`, detached, and log|det W|."""
        left, right = _real(self.left), _real(self.right)
        logs, transposed = log_abs_det_and_inverse(_core(left, right))
        with torch.no_grad():
            return torch.addmm(score, (score @ left) @ transposed.mT, right.mT, alpha=-1), logs


def _core(left: Tensor, right: Tensor) -> Tensor:
    one = torch.eye(left.shape[1], dtype=left.dtype, device=left.device)
    return torch.addmm(one, right.mT, left)


def _real(tensor: Tensor) -> Tensor:
    return tensor.to(log_dtype(tensor))
