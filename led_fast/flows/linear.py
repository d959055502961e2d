"""The linear layer (A.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from led_fast.flows.contract import Layer, check_features, check_positive, log_dtype
from led_fast.ops.autocast import without_autocast
from led_fast.ops.determinant import log_abs_det, log_abs_det_and_inverse


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
        out = torch.addmm(self.bias, t, weight.mT)
        return out, _for_every_sample(log_abs_det(weight.to(log_dtype(weight))), t)

    def inverse(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (W⁻¹ (t - b), -log|det W| for every sample)."""
        _check(t, self.features)
        with without_autocast(t):
            ladj, inverse = _factorise(self.weight)
            out = (t - self.bias).to(inverse.dtype) @ inverse
        return out.to(t.dtype), _for_every_sample(-ladj, t)

    def forward_with_score(self, t: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Layer`: score' = W⁻ᵀ score."""
        _check(t, self.features)
        weight = self.weight
        out = torch.addmm(self.bias, t, weight.mT)
        ladj, inverse = _factorise(weight)
        with without_autocast(t), torch.no_grad():
            carried = (score.to(inverse.dtype) @ inverse.mT).to(score.dtype)
        return out, _for_every_sample(ladj, t), carried


def _check(t: Tensor, features: int) -> None:
    check_features("Linear", t, features)
    if t.dim() != 2:
        raise ValueError(f"Linear: t must have shape (B, {features}), got {tuple(t.shape)}")


def _factorise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """log|det W| and W⁻ᵀ, in the dtype of log-determinants."""
    return log_abs_det_and_inverse(weight.to(log_dtype(weight)))


def _for_every_sample(ladj: Tensor, t: Tensor) -> Tensor:
    return ladj.expand(t.shape[0]).clone()  # no view: the caller may add to it in place
