"""Mixtures of diagonal normals to try operators on, and their log density by torch.distributions."""

import torch
from torch import Tensor
from torch import distributions as D

Mixture = tuple[Tensor, Tensor, Tensor]  # means and log_scales, (K, D), and log_weights, (K,), normalised


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal numbers, the same at every call."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def mixture_of(components: int, dimension: int, kind: str = "broad") -> Mixture:
    """In float64: components that overlap, or "needles", narrow beside their means."""
    means, scales = 2 * normal(components, dimension, seed=1), normal(components, dimension, seed=2)
    log_scales = 0.5 * scales - 0.5 if kind == "broad" else 0.1 * scales - 7
    return means, log_scales, normal(components, seed=3).log_softmax(0)


def points_of(mixture: Mixture, samples: int) -> Tensor:
    """Points near components of the mixture, from the last one on: a few standard deviations off."""
    means, log_scales, _ = mixture
    index = -(1 + 7 * torch.arange(samples)) % len(means)
    return means[index] + log_scales[index].exp() * 1.5 * normal(samples, means.shape[1], seed=4)


def by_distributions(x: Tensor, means: Tensor, log_scales: Tensor, log_weights: Tensor) -> Tensor:
    """The log density of a mixture whose weights add up to 1."""
    components = D.Independent(D.Normal(means, log_scales.exp(), validate_args=False), 1, validate_args=False)
    choice = D.Categorical(logits=log_weights, validate_args=False)
    return D.MixtureSameFamily(choice, components, validate_args=False).log_prob(x)
