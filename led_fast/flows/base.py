"""Base distributions: where a one-way flow starts."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from led_fast.flows.contract import check_event, check_positive, log_dtype, standard_normal_log_prob
from led_fast.ops import mixture_log_prob, mixture_log_prob_and_score


class Base(Protocol):
    """What a one-way flow needs of its base distribution.

    One whose density and score cost less together may have `rsample_log_prob_and_score(n)` besides, as `MixtureBase`.
    """

    def rsample_and_log_prob(self, n: int) -> tuple[Tensor, Tensor]:
        """Draws n samples: (z of shape (n, ...), their log density of shape (n,))."""
        ...

    def rsample(self, n: int) -> Tensor:
        """Draws n samples: (n, ...)."""
        ...

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density at z of shape (n, ...): (n,)."""
        ...

    def score(self, z: Tensor) -> Tensor:
        """Gradient of the log density at z, detached."""
        ...


class DiagonalNormal(nn.Module):
    """A fixed normal distribution with independent coordinates.

    Args:
        mean: mean of one sample; its shape is the shape of a sample.
        scale: standard deviation, one number or a tensor that broadcasts to the shape of `mean`.

    Example:
        >>> import torch
        >>> from led_fast.flows import DiagonalNormal
        >>> DiagonalNormal(torch.zeros(2), scale=2.0).log_prob(torch.zeros(1, 2))
        tensor([-3.2242])
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, scale: Tensor | float = 1.0) -> None:
        super().__init__()
        scale = torch.as_tensor(scale, dtype=mean.dtype, device=mean.device)
        if not scale.is_meta and not bool((scale > 0).all()):
            raise ValueError(f"DiagonalNormal: scale must be positive, got {scale.min().item()}")
        self.register_buffer("mean", mean.detach().clone())
        self.register_buffer("scale", scale.expand_as(mean).detach().clone())

    def rsample_and_log_prob(self, n: int) -> tuple[Tensor, Tensor]:
        """Draws n samples: (z of shape (n, ...), their log density of shape (n,))."""
        noise = torch.randn(n, *self.mean.shape, device=self.mean.device, dtype=self.mean.dtype)
        return self.mean + self.scale * noise, standard_normal_log_prob(noise) - self._log_volume()

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density at z of shape (B, ...), in nats: (B,)."""
        check_event(type(self).__name__, z, self.mean.shape)
        return standard_normal_log_prob((z - self.mean) / self.scale) - self._log_volume()

    def rsample(self, n: int) -> Tensor:
        """Draws n samples: (n, ...)."""
        return self.rsample_and_log_prob(n)[0]

    @torch.no_grad()
    def score(self, z: Tensor) -> Tensor:
        """Gradient of the log density at z, detached."""
        return (self.mean - z) / self.scale.square()

    def _log_volume(self) -> Tensor:
        return self.scale.to(log_dtype(self.scale)).log().sum()


class StandardNormal(DiagonalNormal):
    """The normal distribution N(0, I) on values of a given shape.

    Args:
        *shape: shape of one sample, e.g. `StandardNormal(2)` or `StandardNormal(8, 4, 4)`.

    Example:
        >>> from led_fast.flows import StandardNormal
        >>> z, log_q = StandardNormal(3, 8, 8).rsample_and_log_prob(5)
        >>> z.shape, log_q.shape
        (torch.Size([5, 3, 8, 8]), torch.Size([5]))
    """

    def __init__(self, *shape: int) -> None:
        if not shape or min(shape) < 1:
            raise ValueError(f"StandardNormal: shape must hold positive sizes, got {shape}")
        super().__init__(torch.zeros(shape))

    # As of any diagonal normal, without arithmetic by 0 and 1.

    def rsample_and_log_prob(self, n: int) -> tuple[Tensor, Tensor]:
        """Draws n samples: (z of shape (n, ...), their log density of shape (n,))."""
        z = torch.randn(n, *self.mean.shape, device=self.mean.device, dtype=self.mean.dtype)
        return z, standard_normal_log_prob(z)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density at z of shape (B, ...), in nats: (B,)."""
        check_event(type(self).__name__, z, self.mean.shape)
        return standard_normal_log_prob(z)

    @torch.no_grad()
    def score(self, z: Tensor) -> Tensor:
        """Gradient of the log density at z, detached."""
        return -z


class MixtureBase(nn.Module):
    """A mixture of diagonal normals with learned means, scales and weights.

    A continuous map of one normal joins separate modes by thin bridges; a mixture starts from separate
    pieces. Samples are differentiable in means and scales. The choice of the component is not differentiable,
    so the weights learn from the log density alone: through `log_q_fixed` (forward KL), not through pathwise
    gradients.

    Args:
        features: dimension D of a sample.
        components: number K of normals.
        spread: standard deviation of the initial means around 0.
        scale: initial standard deviation of every component.

    Example:
        >>> from led_fast.flows import MixtureBase
        >>> z, log_q = MixtureBase(2, components=16).rsample_and_log_prob(5)
        >>> z.shape, log_q.shape
        (torch.Size([5, 2]), torch.Size([5]))
    """

    def __init__(self, features: int, components: int, spread: float = 1.0, scale: float = 1.0) -> None:
        super().__init__()
        check_positive("MixtureBase", features=features, components=components, scale=scale)
        self.means = nn.Parameter(spread * torch.randn(components, features))
        self.log_scales = nn.Parameter(torch.full((components, features), math.log(scale)))
        self.logits = nn.Parameter(torch.zeros(components))

    def rsample_and_log_prob(self, n: int) -> tuple[Tensor, Tensor]:
        """Draws n samples: (z of shape (n, D), their log density of shape (n,))."""
        z = self.rsample(n)
        return z, self.log_prob(z)

    def rsample_log_prob_and_score(self, n: int) -> tuple[Tensor, Tensor, Tensor]:
        """Draws n samples: (z, their log density, its gradient at z, detached)."""
        z = self.rsample(n)
        log_prob, score = mixture_log_prob_and_score(z, *self._mixture())
        return z, log_prob, score.detach().to(z.dtype)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density at z of shape (B, D), in nats: (B,)."""
        check_event("MixtureBase", z, self.means.shape[1:])
        return mixture_log_prob(z, *self._mixture())

    def rsample(self, n: int) -> Tensor:
        """Draws n samples: (n, D)."""
        weights = self.logits.detach().softmax(0)
        component = torch.multinomial(weights, max(n, 1), replacement=True)[:n]  # it refuses to draw none
        noise = torch.randn(n, self.means.shape[1], device=self.means.device, dtype=self.means.dtype)
        return self.means[component] + self.log_scales[component].exp() * noise

    @torch.no_grad()
    def score(self, z: Tensor) -> Tensor:
        """Gradient of the log density at z, detached."""
        return mixture_log_prob_and_score(z, *self._mixture())[1].to(z.dtype)

    def _mixture(self) -> tuple[Tensor, Tensor, Tensor]:
        """Means, log scales and log weights."""
        log_weights = self.logits.log_softmax(0, dtype=log_dtype(self.logits))
        return self.means, self.log_scales, log_weights


def rsample_log_prob_and_score(base: Base, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draws n samples of any base: (z, their log density, its gradient at z, detached)."""
    own = getattr(base, "rsample_log_prob_and_score", None)
    if own is not None:
        return own(n)
    z, log_prob = base.rsample_and_log_prob(n)
    return z, log_prob, base.score(z)
