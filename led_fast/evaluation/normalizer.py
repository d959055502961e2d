"""The log-normaliser on the plane by several independent ways, and what they say of each other."""

import math
from collections.abc import Callable
from itertools import chain

import torch
from torch import Tensor, nn

from led_fast.data import DataSource
from led_fast.density import (
    AnnealedBracket,
    AnnealingError,
    KernelProposal,
    NormalizerEstimate,
    QuadratureEstimate,
    Verdict,
    Witness,
    annealed_log_normalizer,
    estimate_log_normalizer,
    eval_mode,
    exactly,
    judge,
    quadrature_log_normalizer,
)
from led_fast.flows import Affine, DiagonalNormal, OneWayFlow

Critic = Callable[[Tensor], Tensor]

_HALF_WIDTH = 8.0  # of the box, in standard deviations of the data: 4 of the critic's own tail
_CELLS = 192  # each 0.083 wide: finds modes down to a standard deviation of 0.014
_BROAD_SCALE = 1.5  # standard deviation of the normal that the second estimates start from
_KERNELS, _FINEST_KERNEL = 256, 0.01
_TEMPERATURES, _CHAINS = 200, 600  # two or three seconds
_WHERE_THE_GENERATOR, _FAR_AWAY = "where the generator never draws", "far from the data"


def quadrature_in_data_coordinates(critic: Critic, shift: Tensor, scale: Tensor) -> QuadratureEstimate:
    """Integrates exp(critic) over a box around the data.

    Args:
        critic: (B, 2) data points -> (B,), in nats; a module is called on its own device, another one on the CPU.
        shift: (2,) float64, mean of the data.
        scale: (2,) float64, their standard deviation along each axis.

    Example:
        >>> import torch
        >>> from led_fast.evaluation import quadrature_in_data_coordinates
        >>> shift, scale = torch.tensor([100.0, 0.0]).double(), torch.tensor([10.0, 1.0]).double()
        >>> standard = torch.distributions.Normal(0.0, 1.0)
        >>> found = quadrature_in_data_coordinates(
        ...     lambda x: standard.log_prob((x - shift) / scale).sum(1), shift, scale
        ... )
        >>> round(found.value, 3)  # log 10
        2.303
    """
    low, high = (-_HALF_WIDTH, -_HALF_WIDTH), (_HALF_WIDTH, _HALF_WIDTH)
    device = _device(critic)
    with eval_mode(critic):
        standardized = quadrature_log_normalizer(
            lambda u: critic((shift + scale * u).to(device)), low, high, cells=_CELLS
        )
    return standardized._replace(value=standardized.value + scale.log().sum().item())


def estimate_broadly(critic: Critic, source: DataSource) -> NormalizerEstimate:
    """Importance sampling from blurred data and a broad normal: it draws wherever the data are, and around them.

    Args:
        critic: (B, 2) data points -> (B,), in nats; a module is called on its own device, another one on the CPU.
        source: the data.
    """
    return estimate_log_normalizer(critic, _BlurredData(source, _device(critic)))


def anneal(critic: Critic, source: DataSource, refined: Tensor) -> AnnealedBracket | None:
    """Annealing between a broad normal and the critic's density; None where its warm-up failed.

    Args:
        critic: (B, 2) data points -> (B,), in nats; a module is called on its own device, another one on the CPU.
        source: the data, for their mean and scale.
        refined: the model's refined samples, 600 or more, to start the way back from.
    """
    broad = DiagonalNormal(torch.zeros(2), _BROAD_SCALE)
    start = OneWayFlow(broad, [Affine(source.scale, source.shift)]).to(_device(critic))
    try:
        return annealed_log_normalizer(critic, start, refined[:_CHAINS], _TEMPERATURES, _CHAINS)
    except AnnealingError:
        return None


def plane_verdict(
    generator: NormalizerEstimate,
    broad: NormalizerEstimate,
    annealed: AnnealedBracket | None,
    quadrature: QuadratureEstimate | None = None,
) -> Verdict:
    """The verdict on the generator's estimate of log α.

    The broad proposal and annealing from one are of one kind: both draw wherever data are, and around them. The way
    back starts from refined samples, which do not leave the generator's modes, so that it is a bound.

    Args:
        generator: by importance sampling from the generator.
        broad: by importance sampling from a broad proposal.
        annealed: from a broad density, None where that failed.
        quadrature: on the plane.
    """
    witnesses = {"generator": Witness(generator, _WHERE_THE_GENERATOR), "broad": Witness(broad, _FAR_AWAY)}
    if annealed is not None:
        witnesses["annealed_forward"] = Witness(annealed.forward, _FAR_AWAY)
        if annealed.reverse is not None:
            witnesses["annealed_reverse"] = Witness(annealed.reverse, _WHERE_THE_GENERATOR, "bound")
    if quadrature is not None:
        witnesses["quadrature"] = exactly(quadrature)
    return judge("generator", witnesses)


class _BlurredData:
    """A `KernelProposal` of standardised data, in the data's own coordinates."""

    def __init__(self, source: DataSource, device: torch.device) -> None:
        self.shift, self.scale = source.shift.to(device), source.scale.to(device)
        points = ((source.sample(_KERNELS).to(device) - self.shift) / self.scale).float()
        widths = torch.logspace(math.log10(_FINEST_KERNEL), 0, 5, device=device)
        broad = DiagonalNormal(torch.zeros(2, device=device), _BROAD_SCALE)
        self.kernels = KernelProposal(points, widths, broad)

    def rsample_and_log_prob(self, n: int) -> tuple[Tensor, Tensor]:
        u, log_q = self.kernels.rsample_and_log_prob(n)
        return self.shift + self.scale * u, log_q - self.scale.log().sum()


def _device(critic: Critic) -> torch.device:
    """Where a critic computes; the CPU where it is not a module, or has no tensors."""
    tensors = chain(critic.parameters(), critic.buffers()) if isinstance(critic, nn.Module) else ()
    return next((tensor.device for tensor in tensors), torch.device("cpu"))
