"""A proposal around the data: what finds a mode that the generator has not found yet."""

import math

import torch
from torch import Tensor, nn

from led_fast.flows import DiagonalNormal


class BlurredData(nn.Module):
    """Data points blurred by normals of several widths, with some draws of a broad normal among them.

    Its density `(1 - ε) mean_{i,w} N(y; x_i, w² I) + ε b(y)` is known everywhere, and never far below that of
    the data: half of a critic's integral samples can come from it (App. B.3, with more than one normal).

    Args:
        widths: (W,) standard deviations of the blur.
        broad: b.
        broad_share: ε.
    """

    points: Tensor
    widths: Tensor

    def __init__(self, widths: Tensor, broad: DiagonalNormal, broad_share: float) -> None:
        """See the class; `points`, (N, D), are set before every draw."""
        super().__init__()
        self.register_buffer("widths", widths)
        self.register_buffer("points", torch.empty(0, len(broad.mean)), persistent=False)
        self.broad, self.broad_share = broad, broad_share

    @torch.no_grad()
    def rsample(self, n: int) -> tuple[Tensor, Tensor]:
        """Draws n samples: (y, (n, D), and their log density, (n,))."""
        point = self.points[torch.randint(len(self.points), (n,))]
        width = self.widths[torch.randint(len(self.widths), (n, 1))]
        blurred = point + width * torch.randn_like(point)
        y = torch.where(torch.rand(n, 1) < self.broad_share, self.broad.rsample(n)[0], blurred)
        return y, self.log_prob(y)

    def log_prob(self, y: Tensor) -> Tensor:
        """Log density at y, (B, D) -> (B,), in nats."""
        squared = (y[:, None] - self.points).square().sum(-1)
        exponents = -squared[:, None] / (2 * self.widths[:, None].square())  # (B, W, N)
        log_kernels = exponents.logsumexp(2) - y.shape[1] * self.widths.log()
        constant = math.log(len(self.points) * len(self.widths)) + 0.5 * y.shape[1] * math.log(2 * math.pi)
        log_blurred = log_kernels.logsumexp(1) - constant
        log_shares = y.new_tensor([1 - self.broad_share, self.broad_share]).log()  # -inf is a share of none
        return torch.stack([log_blurred, self.broad.log_prob(y)], 1).add(log_shares).logsumexp(1)


def typical_spacing(points: Tensor) -> float:
    """Median distance of points (N, D) to their nearest neighbour: the scale of the data's finest detail."""
    distance = (points[:, None] - points).norm(dim=-1)
    distance.fill_diagonal_(math.inf)
    return distance.min(1).values.median().item()
