"""The linear layer (A.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from led_fast.flows.contract import check_features, check_positive
from led_fast.flows.score import forward_with_score


class Linear(nn.Module):
    """A square linear map with bias, `t' = W t + b`, ladj = log|det W| (Eq. 9).

    The weight starts as a random orthogonal matrix: determinant ±1, every singular value 1. The entropy term
    of the generator's loss keeps it away from singularity afterwards; at a singular W, ladj is -inf.

    Args:
        features: size D of input and output.

    Shape:
        t: (B, D). Output: (B, D) and ladj (B,).
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        check_positive("Linear", features=features)
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(features, features)))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (W t + b, log|det W| for every sample)."""
        check_features("Linear", t, len(self.bias))
        ladj = torch.linalg.slogdet(self.weight).logabsdet
        return torch.addmm(self.bias, t, self.weight.mT), ladj.expand(len(t))


@forward_with_score.register
def _(layer: Linear, t: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    out, ladj = layer(t)
    return out, ladj, torch.linalg.solve(layer.weight.detach(), score, left=False)
