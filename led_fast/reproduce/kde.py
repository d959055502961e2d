"""Kernel density estimation: the density that samples alone give, to hold LED's own against."""

import math

import torch
from torch import Tensor

_CHUNK = 128  # queries at a time: their distances stay in the cache
_WIDTHS = 25


class KernelDensity:
    """Equal mixture of isotropic normals around points (n, D).

    Args:
        points: the centers.
        width: standard deviation of every normal.
    """

    def __init__(self, points: Tensor, width: float) -> None:
        self.points, self.width = points, width

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density of points (B, D), in nats; (B,)."""
        return _log_prob(x, self.points, [self.width])[0]

    def sample(self, n: int) -> Tensor:
        """Draws (n, D) points."""
        center = self.points[torch.randint(len(self.points), (n,), device=self.points.device)]
        return center + self.width * torch.randn_like(center)


def fit_kernel_density(points: Tensor, validation: Tensor, scale: float) -> KernelDensity:
    """Takes, of widths in a geometric series, the one of the highest likelihood on validation points.

    Args:
        points: the centers, (n, D).
        validation: of the data, (m, D).
        scale: spread of the data; the widths lie between 1/1000 of it and itself.
    """
    widths = torch.logspace(-3, 0, _WIDTHS, device="cpu").mul(scale).tolist()
    likelihood = _log_prob(validation, points, widths).double().mean(dim=1)
    return KernelDensity(points, widths[int(likelihood.argmax())])


def _log_prob(x: Tensor, points: Tensor, widths: list[float]) -> Tensor:
    """Log density of x (B, D) for each width, (widths, B)."""
    n, dim = points.shape
    chunks = []
    for chunk in x.to(points).split(_CHUNK):
        squared = torch.cdist(chunk, points, compute_mode="donot_use_mm_for_euclid_dist").square_()
        chunks.append(torch.stack([torch.logsumexp(squared / (-2 * h * h), dim=1) for h in widths]))
    log_norm = (
        torch.tensor(widths, device=points.device).mul(math.sqrt(2 * math.pi)).log().mul(dim).add(math.log(n))
    )
    return torch.cat(chunks, dim=1) - log_norm[:, None]
