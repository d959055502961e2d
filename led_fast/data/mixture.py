"""The ring of 8 and the grid of 25 Gaussians, with everything about them exact."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class GaussianMixture:
    """Equal-weight mixture of isotropic Gaussians that all have the same standard deviation.

    Attributes:
        centers: (K, D) means of the components, float64.
        std: standard deviation of every component.

    Example:
        >>> import torch
        >>> from led_fast.data import GaussianMixture
        >>> mixture = GaussianMixture(torch.tensor([[0.0, 0.0], [1.0, 0.0]]), std=0.1)
        >>> mixture.sample(5).shape, mixture.log_prob(torch.zeros(3, 2)).shape
        (torch.Size([5, 2]), torch.Size([3]))
    """

    centers: Tensor
    std: float

    def sample(self, n: int) -> Tensor:
        """Draws (n, D) points, float64."""
        component = torch.randint(len(self.centers), (n,), device=self.centers.device)
        return self.centers[component] + self.std * torch.randn_like(self.centers[component])

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log density of points (B, D), in nats; (B,), float64."""
        # Differences, not cdist: its matrix-product form loses the digits that 0.01-wide modes need.
        squared = (x.to(self.centers)[:, None] - self.centers).square().sum(-1)
        log_normalizer = math.log(len(self.centers)) + self.dim * math.log(self.std * math.sqrt(2 * math.pi))
        return torch.logsumexp(-squared / (2 * self.std**2), dim=1) - log_normalizer

    def nearest(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Distance of points (B, D) to the nearest center, in units of std, and its index; (B,) each."""
        distance, index = (x.to(self.centers)[:, None] - self.centers).norm(dim=-1).min(dim=1)
        return distance / self.std, index

    @property
    def dim(self) -> int:
        """Dimension D of the space."""
        return self.centers.shape[1]

    @property
    def entropy(self) -> float:
        """Differential entropy in nats, of components that do not overlap (ours are ≥ 40 std apart)."""
        return math.log(len(self.centers)) + self.dim * (0.5 + math.log(self.std * math.sqrt(2 * math.pi)))

    @property
    def mean(self) -> Tensor:
        """Mean of the mixture, (D,)."""
        return self.centers.mean(0)

    @property
    def scale(self) -> Tensor:
        """Standard deviation of the mixture along each axis, (D,)."""
        return (self.centers.var(0, correction=0) + self.std**2).sqrt()


def ring() -> GaussianMixture:
    """8 Gaussians of standard deviation 0.01 on the unit circle.

    Example:
        >>> from led_fast.data import ring
        >>> ring().centers.shape
        torch.Size([8, 2])
    """
    angle = torch.arange(8, dtype=torch.float64, device="cpu") * (2 * math.pi / 8)
    return GaussianMixture(torch.stack([angle.cos(), angle.sin()], dim=1), std=0.01)


def grid() -> GaussianMixture:
    """25 Gaussians of standard deviation 0.05 at {-4, -2, 0, 2, 4}².

    Example:
        >>> from led_fast.data import grid
        >>> grid().centers.shape
        torch.Size([25, 2])
    """
    axis = torch.linspace(-4, 4, 5, dtype=torch.float64, device="cpu")
    return GaussianMixture(torch.cartesian_prod(axis, axis), std=0.05)
