"""A perceptron of points, and the Gaussian tail that makes a critic's integral finite."""

from __future__ import annotations

from torch import Tensor, nn

from led_fast.models.dcgan_critic import Penalty
from led_fast.nn import FourierFeatures, PerpendicularLinear, PerpendicularSequential


class Perceptron(nn.Module):
    """A perceptron with one output, on Fourier features of its input where `directions` > 0.

    With a penalty, the norms of what its linear layers do not look at are subtracted from the output.

    Shape:
        x: (B, features). Output: (B,).

    Example:
        >>> import torch
        >>> from led_fast.models import Perceptron
        >>> net = Perceptron(features=2, width=32, depth=2, directions=16, highest=8.0, activation="silu")
        >>> net(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    def __init__(
        self,
        features: int,
        width: int,
        depth: int,
        directions: int,
        highest: float,
        activation: str,
        penalty: Penalty = "off",
        squared: bool = False,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if directions:
            layers.append(FourierFeatures(features, directions, highest=highest))
            features += 2 * directions
        for _ in range(depth):
            layers.append(_linear(features, width, penalty))
            layers.append(nn.SiLU() if activation == "silu" else nn.LeakyReLU(0.2))
            features = width
        self.net = PerpendicularSequential(*layers, _linear(features, 1, penalty), squared=squared)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the value at each row of x."""
        value, penalty = self.net(x)
        return value.squeeze(1) - penalty


class GaussianTailCritic(nn.Module):
    """A critic of finite integral, `f(x) = net(x) - ‖x - mean‖² / (2 scale²)`, for a net that grows slower.

    Args:
        net: (B, ...) -> (B,).
        mean: centre of the tail, the shape of one x.
        scale: standard deviation of the tail, wider than the data.

    Example:
        >>> import torch
        >>> from led_fast.models import GaussianTailCritic
        >>> critic = GaussianTailCritic(lambda x: torch.zeros(len(x)), torch.zeros(2), scale=1.0)
        >>> critic(torch.ones(1, 2))
        tensor([-1.])
    """

    mean: Tensor

    def __init__(self, net: nn.Module, mean: Tensor, scale: float) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"GaussianTailCritic: scale must be positive, got {scale}")
        self.net = net
        self.scale = scale
        self.register_buffer("mean", mean.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Returns f(x) = log N(x)."""
        distance = ((x - self.mean) / self.scale).flatten(1).square().sum(dim=1)
        return self.net(x) - 0.5 * distance


def _linear(features: int, outs: int, penalty: Penalty) -> nn.Linear:
    if penalty == "off":
        return nn.Linear(features, outs)
    return PerpendicularLinear(features, outs, mode=penalty)
