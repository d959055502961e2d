"""The linear layer (A.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from led_fast.flows.contract import Layer, check_features, check_positive, log_dtype, of_its_own
from led_fast.ops.determinant import log_abs_det


class Linear(Layer):
    """A square linear map with bias, `t' = W t + b`, ladj = log|det W| (Eq. 9).

    The weight starts as a random orthogonal matrix: determinant ±1, every singular value 1. The entropy term
    of the generator's loss keeps it away from singularity afterwards. At a singular W, ladj is -inf; there is no way
    back, so that of `inverse` is inf, and neither its values nor the score are finite.

    Args:
        features: size D of input and output.

    Shape:
        t: (B, D). Output: (B, D) and ladj (B,).
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        check_positive("Linear", features=features)
        self.features = features
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(features, features)))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (W t + b, log|det W| for every sample)."""
        _check(t, self.features)
        weight = self.weight
        return torch.addmm(self.bias, t, weight.mT), _ladj(weight).repeat(t.shape[0])

    def inverse(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (W⁻¹ (t - b), -log|det W| for every sample)."""
        _check(t, self.features)
        factors, pivots = _factor(self.weight)
        ladj = factors.diagonal().abs().log().sum()
        out = torch.linalg.lu_solve(
            factors, pivots, (t - self.bias).to(factors.dtype), left=False, adjoint=True
        )
        return of_its_own(out.to(t.dtype)), -ladj.repeat(t.shape[0])

    def forward_with_score(self, t: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Layer`: score' = W⁻ᵀ score."""
        _check(t, self.features)
        weight = self.weight
        out = torch.addmm(self.bias, t, weight.mT)
        factors, pivots = _factor(weight.detach())
        carried = torch.linalg.lu_solve(factors, pivots, score.to(factors.dtype), left=False)
        return out, _ladj(weight).repeat(t.shape[0]), carried.to(score.dtype)


def _check(t: Tensor, features: int) -> None:
    check_features("Linear", t, features)
    if t.dim() != 2:
        raise ValueError(f"Linear: t must have shape (B, {features}), got {tuple(t.shape)}")


def _ladj(weight: Tensor) -> Tensor:
    return log_abs_det(weight.to(log_dtype(weight)))


def _factor(weight: Tensor) -> tuple[Tensor, Tensor]:
    """LU factors of W, and their pivots. Unchecked, because a GPU would have to be waited for."""
    factors, pivots, _ = torch.linalg.lu_factor_ex(weight.to(log_dtype(weight)))
    return factors, pivots
