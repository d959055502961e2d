"""A model of standardised points as a density in the data's own coordinates."""

from torch import Tensor, nn

from led_fast.density import DensityModel
from led_fast.flows import Affine, OneWayFlow


class StandardizedCritic(nn.Module):
    """A critic of standardised points as a function of data points: x -> f((x - shift) / scale).

    The subtraction is done in float64: data far from the origin lose nothing to it.

    Args:
        critic: (B, D) -> (B,).
        shift: (D,).
        scale: (D,), positive.

    Example:
        >>> import torch
        >>> from led_fast.models import StandardizedCritic, points_critic
        >>> critic = StandardizedCritic(points_critic(), torch.tensor([100.0, 0.0]), torch.tensor([10.0, 1.0]))
        >>> critic(torch.tensor([[110.0, 1.0]])).shape
        torch.Size([1])
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, critic: nn.Module, shift: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.critic = critic
        self.register_buffer("shift", shift.double())
        self.register_buffer("scale", scale.double())

    def forward(self, x: Tensor) -> Tensor:
        """Critic's value at data points x, (B, D) -> (B,)."""
        weight = next(self.critic.parameters())
        return self.critic(((x - self.shift) / self.scale).to(weight.dtype))


def in_data_coordinates(
    critic: nn.Module, generator: OneWayFlow, shift: Tensor, scale: Tensor
) -> DensityModel:
    """Joins a critic and a generator of standardised points into a density of data points.

    The generator's new last layer accounts for the log-determinant Σ log scale; the critic's is in log α.

    Example:
        >>> import torch
        >>> from led_fast import models
        >>> shift, scale = torch.tensor([100.0, 0.0]), torch.tensor([10.0, 1.0])
        >>> model = models.in_data_coordinates(models.points_critic(), models.points_generator(), shift, scale)
        >>> model.sample(5).shape
        torch.Size([5, 2])
    """
    rescaled = OneWayFlow(generator.base, [*generator.layers, Affine(scale.double(), shift.double())])
    return DensityModel(StandardizedCritic(critic, shift, scale), rescaled)
