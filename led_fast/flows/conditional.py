"""Conditional densities r(t2 | t1) of what a slice drops, given what it keeps (Eq. 8)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from led_fast.flows.contract import check_positive, standard_normal_log_prob
from led_fast.nn import FourierFeatures, MixedSequential
from led_fast.ops.determinant import log_abs_det


class GaussianConditional(nn.Module):
    """The paper's choice, normal around the kept neighbour: `r(t2 | t1) = N(t2; t1, σ² I)`.

    Args:
        sigma: standard deviation σ.

    Shape:
        dropped: (B, F, ...). kept: (B, F or more, ...), the first F being the neighbours. Output: (B,).

    Example:
        >>> import torch
        >>> from led_fast.flows import GaussianConditional
        >>> GaussianConditional()(torch.zeros(1, 2), torch.zeros(1, 2))
        tensor([-1.8379])
    """

    def __init__(self, sigma: float = 1.0) -> None:
        super().__init__()
        check_positive("GaussianConditional", sigma=sigma)
        self.sigma = sigma

    def forward(self, dropped: Tensor, kept: Tensor) -> Tensor:
        """Returns log N(dropped; kept, σ² I)."""
        standardised = (dropped - self._neighbours(kept, dropped.shape[1])) / self.sigma
        return self._log_prob(standardised)

    def rsample_and_log_prob(self, kept: Tensor, features: int) -> tuple[Tensor, Tensor]:
        """Draws what is dropped, given what is kept: (B, features, ...), and log r of it, (B,)."""
        neighbours = self._neighbours(kept, features)
        standardised = torch.randn_like(neighbours)
        return neighbours + self.sigma * standardised, self._log_prob(standardised)

    def _neighbours(self, kept: Tensor, dropped: int) -> Tensor:
        if dropped > kept.shape[1]:
            raise ValueError(
                f"GaussianConditional: dropped must have at most as many features as kept, got {dropped} and "
                f"{kept.shape[1]}"
            )
        return kept[:, :dropped]

    def _log_prob(self, standardised: Tensor) -> Tensor:
        return standard_normal_log_prob(standardised) - math.log(self.sigma) * math.prod(
            standardised.shape[1:]
        )


class LearnedConditional(nn.Module):
    """A conditional flow: maps t2 to standard normal noise by steps whose parameters depend on t1.

    Mean and scale of t2 come from a small network on Fourier features of t1; linear maps and affine couplings
    follow, so that the noise's covariance and shape depend on t1 and on the other dropped coordinates. Only
    its density is ever needed, so no step is inverted.

    Args:
        dropped: dimension of t2.
        kept: dimension of t1.
        width: hidden units of every network.
        couplings: number of {linear, affine coupling} steps; a single dropped coordinate needs none.
        directions: Fourier frequencies of t1, see `FourierFeatures`.

    Shape:
        t2: (B, dropped); t1: (B, kept). Output: (B,).

    Example:
        >>> import torch
        >>> from led_fast.flows import LearnedConditional
        >>> LearnedConditional(dropped=2, kept=3)(torch.zeros(5, 2), torch.zeros(5, 3)).shape
        torch.Size([5])
    """

    def __init__(
        self, dropped: int, kept: int, width: int = 64, couplings: int = 2, directions: int = 32
    ) -> None:
        super().__init__()
        check_positive("LearnedConditional", dropped=dropped, kept=kept, width=width)
        features = FourierFeatures(kept, directions)
        self.context = MixedSequential(
            features, nn.Linear(features.out_features, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )
        self.affine = _zero_linear(width, 2 * dropped)
        self.fixed = dropped // 2
        steps = couplings if dropped > 1 else 0
        self.mixings = nn.ParameterList(torch.eye(dropped) for _ in range(steps))
        self.couplings = nn.ModuleList(
            MixedSequential(
                nn.Linear(self.fixed + width, width),
                nn.SiLU(),
                _zero_linear(width, 2 * (dropped - self.fixed)),
            )
            for _ in range(steps)
        )

    def forward(self, dropped: Tensor, kept: Tensor) -> Tensor:
        """Returns log r(dropped | kept)."""
        context = self.context(kept)
        noise, log_det = _affine(dropped, self.affine(context), bound=4.0)
        for mixing, coupling in zip(self.mixings, self.couplings, strict=True):
            noise = noise @ mixing.mT
            fixed, moved = noise[:, : self.fixed], noise[:, self.fixed :]
            moved, ladj = _affine(moved, coupling(torch.cat([fixed, context], dim=1)), bound=2.0)
            noise = torch.cat([moved, fixed], dim=1)  # they change roles
            log_det = log_det + ladj + log_abs_det(mixing)
        return standard_normal_log_prob(noise) + log_det


def _affine(x: Tensor, parameters: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """Shifts and scales x, with log scales kept within ±bound: (x', log-determinant)."""
    shift, log_scale = parameters.chunk(2, dim=1)
    log_scale = bound * torch.tanh(log_scale / bound)
    return (x - shift) * log_scale.exp(), log_scale.sum(dim=1)


def _zero_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer that starts at zero: the step that it parametrises starts as the identity."""
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
