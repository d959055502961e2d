"""Affine coupling: part of the features scales and shifts the rest, through any network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from led_fast.flows.contract import check_features, check_positive, sum_event
from led_fast.flows.score import forward_with_score


class Coupling(nn.Module):
    """`t2' = e^{s(t1)} t2 + m(t1)` and `t1' = t1`, ladj = Σ s (Dinh et al. 2016, "Real NVP").

    The Jacobian is triangular whatever the network computes, so a deep one adds expressive power at no cost
    in the bookkeeping. The paper's generator has no such layer.

    Args:
        network: maps t1 to [m ‖ s], (B, 2 F2, ...). It must treat the samples of a batch independently.
        features: number F of features (channels) of t.
        given: number F1 of features that stay; F2 = F - F1 are changed.
        given_first: whether t1 are the first features or the last.
        bound: largest |s|; s is squashed into it smoothly.

    Shape:
        t: (B, F, ...). Output: the same and ladj (B,).
    """

    def __init__(
        self, network: nn.Module, features: int, given: int, given_first: bool = True, bound: float = 4.0
    ) -> None:
        super().__init__()
        check_positive("Coupling", features=features, bound=bound)
        if not 0 < given < features:
            raise ValueError(f"Coupling: wanted 0 < given < features = {features}, got given = {given}")
        self.network = network
        self.features = features
        self.given = given
        self.given_first = given_first
        self.bound = bound

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (t', Σ s)."""
        return self._transform(*self._split(t))[:2]

    def _split(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(t1, t2): what stays and what changes."""
        check_features("Coupling", t, self.features)
        if self.given_first:
            return t[:, : self.given], t[:, self.given :]
        return t[:, -self.given :], t[:, : -self.given]

    def _join(self, t1: Tensor, t2: Tensor) -> Tensor:
        return torch.cat([t1, t2] if self.given_first else [t2, t1], dim=1)

    def _transform(self, t1: Tensor, t2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(t', ladj, s)."""
        mean, log_scale = self.network(t1).chunk(2, dim=1)
        log_scale = self.bound * torch.tanh(log_scale / self.bound)
        return self._join(t1, log_scale.exp() * t2 + mean), sum_event(log_scale), log_scale


@forward_with_score.register
def _(layer: Coupling, t: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    score1, score2 = layer._split(score)
    with torch.enable_grad():
        t1, t2 = layer._split(t)
        t1 = t1 if t1.requires_grad else t1.detach().requires_grad_()
        out, ladj, log_scale = layer._transform(t1, t2)
        score2 = score2 * (-log_scale.detach()).exp()
        # J^{-T} of a triangular J: what t2' owes to t1 is taken off the score of t1, in one backward pass.
        owed = ladj + sum_event(score2 * layer._split(out)[1])
        (by_given,) = torch.autograd.grad(owed.sum(), t1, retain_graph=True)
    return out, ladj, layer._join(score1 - by_given, score2)
