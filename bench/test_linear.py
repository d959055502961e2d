"""The linear layer's parametrisations, beside a factorisation for each of log-determinant, score and way back."""

from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor

from led_fast.flows import Linear
from led_fast.flows.linear import Parametrization

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SAMPLES = 256


class Separate(torch.nn.Module):
    """What one writes down of Eq. 9 and its score: slogdet, and lu_solve."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight, self.bias = Linear(features).parameters()

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        ladj = torch.linalg.slogdet(self.weight).logabsdet
        return torch.addmm(self.bias, t, self.weight.mT), ladj.repeat(len(t))

    def inverse(self, t: Tensor) -> tuple[Tensor, Tensor]:
        factors, pivots, _ = torch.linalg.lu_factor_ex(self.weight)
        out = torch.linalg.lu_solve(factors, pivots, t - self.bias, left=False, adjoint=True)
        return out, -factors.diagonal().abs().log().sum().repeat(len(t))

    def forward_with_score(self, t: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        factors, pivots, _ = torch.linalg.lu_factor_ex(self.weight.detach())
        return *self(t), torch.linalg.lu_solve(factors, pivots, score, left=False)


def trained(layer: torch.nn.Module, t: Tensor, score: Tensor) -> tuple[Tensor, ...]:
    out, ladj, _ = layer.forward_with_score(t, score)
    return torch.autograd.grad((out, ladj), [t, *layer.parameters()], (score, score[:, 0]))


@torch.no_grad()
def drawn(layer: torch.nn.Module, t: Tensor, score: Tensor) -> tuple[Tensor, ...]:
    return layer(t)


@torch.no_grad()
def taken_back(layer: torch.nn.Module, t: Tensor, score: Tensor) -> tuple[Tensor, ...]:
    return layer.inverse(t)


CALLS: dict[str, Callable] = {
    "forward_with_score+backward": trained,
    "forward": drawn,
    "inverse": taken_back,
}


@pytest.mark.parametrize("threads", [1], indirect=True)
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("features", [2, 32, 256])
@pytest.mark.parametrize("parametrization", get_args(Parametrization))
def test_beside_separate_factorisations(compare, parametrization, features, call, threads) -> None:
    t, score = torch.randn(2, SAMPLES, features, device=DEVICE)
    t.requires_grad_()
    layer, separate = Linear(features, parametrization).to(DEVICE), Separate(features).to(DEVICE)
    contenders = {
        "led_fast": lambda: CALLS[call](layer, t, score),
        "separate": lambda: CALLS[call](separate, t, score),
    }
    case = {"parametrization": parametrization, "features": features, "call": call}
    compare("linear", case, contenders)
