"""The density model: a critic, its normaliser, and the generator that samples it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from led_fast.density.diagnostics import effective_sample_size
from led_fast.density.mode import eval_mode
from led_fast.density.quadrature import QuadratureEstimate
from led_fast.flows import OneWayFlow


class RefinedSample(NamedTuple):
    """Importance-resampled x, (n, ...), and the effective share of the draws they were chosen from."""

    x: Tensor
    ess_fraction: float


class DensityModel(nn.Module):
    """The density `log p(x) = f(x) - log α` of a critic f, and samples from it by a generator (Sec. 2).

    Args:
        critic: f = log N, a module (B, ...) -> (B,).
        generator: a one-way flow onto the same space.
    """

    log_normalizer: Tensor
    _quadrature: Tensor

    def __init__(self, critic: nn.Module, generator: OneWayFlow) -> None:
        super().__init__()
        self.critic = critic
        self.generator = generator
        self.register_buffer("log_normalizer", torch.tensor(float("nan"), dtype=torch.float64))
        self.register_buffer("_quadrature", torch.zeros(len(QuadratureEstimate._fields), dtype=torch.float64))

    def unnormalized_log_prob(self, x: Tensor) -> Tensor:
        """The critic's f(x) = log N(x): (B, ...) -> (B,), in nats."""
        return self.critic(x)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density of x: (B, ...) -> (B,), in nats.

        Raises:
            RuntimeError: `log_normalizer` has not been set.
        """
        if self.log_normalizer.isnan():
            raise RuntimeError(
                "DensityModel.log_prob: log_normalizer is not set; estimate it, then call set_log_normalizer"
            )
        f = self.critic(x)
        return f - self.log_normalizer.to(torch.promote_types(f.dtype, x.dtype))

    def set_log_normalizer(self, value: float | QuadratureEstimate) -> None:
        """Sets log α, from `estimate_log_normalizer` or `quadrature_log_normalizer`; a quadrature is kept whole."""
        quadrature = value if isinstance(value, QuadratureEstimate) else (value, 0.0, 0.0, 0)
        self.log_normalizer.fill_(quadrature[0])
        self._quadrature.copy_(torch.tensor(quadrature, dtype=torch.float64))

    @property
    def quadrature(self) -> QuadratureEstimate | None:
        """The quadrature that log α is from; None where it is from elsewhere."""
        value, error, edge_share, evaluations = self._quadrature.tolist()
        return QuadratureEstimate(value, error, edge_share, int(evaluations)) if evaluations else None

    def sample(self, n: int, refine: bool = False) -> Tensor:
        """Draws n samples of the generator, or with `refine` of the density itself: (n, ...)."""
        if refine:
            return self.refined_sample(n).x
        with eval_mode(self.generator):
            return self.generator.sample(n)

    @torch.no_grad()
    def refined_sample(self, n: int, draws_per_sample: int = 8) -> RefinedSample:
        """Draws from the density by importance resampling of generator draws with weights N / q.

        The samples follow p as the number of draws grows, as far as the generator covers p; a draw of large
        weight comes more than once.

        Args:
            n: number of samples.
            draws_per_sample: generator draws for each sample returned.

        Raises:
            ValueError: n is not positive, or a weight is NaN or infinite, or all weights are zero.
        """
        if n < 1:
            raise ValueError(f"DensityModel.refined_sample: n must be positive, got {n}")
        with eval_mode(self.generator, self.critic):
            rounds = [self._weighted_draw(n) for _ in range(draws_per_sample)]
        x, log_weights = (torch.cat(parts) for parts in zip(*rounds, strict=True))
        return RefinedSample(
            x[_systematic(log_weights, n)], effective_sample_size(log_weights) / len(log_weights)
        )

    def _weighted_draw(self, n: int) -> tuple[Tensor, Tensor]:
        y, log_q = self.generator.rsample_and_log_prob(n)
        return y, self.critic(y) - log_q


def _systematic(log_weights: Tensor, n: int) -> Tensor:
    """Indices of n draws in proportion to their weights, in random order.

    Systematic resampling: one uniform offset for n equal strides, so each index comes `n w̄` times, rounded
    up or down.
    """
    if not bool(log_weights.max().isfinite()):
        raise ValueError(
            "DensityModel.refined_sample: the importance weights are not finite, or all are zero"
        )
    cumulative = log_weights.double().softmax(0).cumsum(0)
    offset = torch.rand((), dtype=torch.float64, device=log_weights.device)
    strides = (torch.arange(n, dtype=torch.float64, device=log_weights.device) + offset) / n
    index = torch.searchsorted(cumulative, strides * cumulative[-1]).clamp(max=len(log_weights) - 1)
    return index[torch.randperm(n, device=index.device)]
