"""Steps as Glow's (Kingma and Dhariwal 2018), of the paper's circular convolutions and soft-ReLUs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from led_fast.flows import Coupling, Inverse, SoftReLU
from led_fast.nn import CircularConv2d, Conv2d, InplaceLeakyReLU, MixedSequential


class Limits(NamedTuple):
    """What keeps steps from building each other up on the way to an image.

    A coupling there adds what it predicts, and networks extrapolate: a value that is out of the ordinary makes others
    so, and after a dozen steps a patch of pixels is far beyond white. (Behrmann et al. 2021, "Understanding and
    mitigating exploding inverses in invertible neural networks".)

    Attributes:
        log_scale: largest of a coupling.
        reach: values count as no more than this to a network, smoothly; None: as what they are.
    """

    log_scale: float
    reach: float | None


def flow_steps(
    count: int, channels: int, size: int, width: int, kernel_size: int, limits: Limits
) -> list[nn.Module]:
    """Steps of {circular convolution, soft-ReLU, affine coupling}, in order from the image to noise.

    The former two run backward, so that the way from an image to noise is the cheap one.

    Args:
        count: of the steps, whose couplings change the two halves of the channels in turn.
        channels: C of the images, even.
        size: H of the images, and W.
        width: channels of the two hidden layers of the networks in couplings.
        kernel_size: of the convolutions.
        limits: of the couplings.

    Shape:
        of the layers: (B, C, H, W) -> the same, and ladj (B,).
    """
    layers: list[nn.Module] = []
    for i in range(count):
        layers += [
            Inverse(CircularConv2d(channels, kernel_size)),
            Inverse(SoftReLU(features=channels, learned=True)),
            coupling_by_place(channels, size, width, i % 2 == 1, limits),
        ]
    return layers


def coupling_by_place(channels: int, size: int, width: int, given_first: bool, limits: Limits) -> Coupling:
    """An affine coupling of halves of the channels, by a `PlacedNetwork`."""
    half = channels // 2
    network = PlacedNetwork(half, channels, size, width, limits.reach)
    return Coupling(network, channels, half, given_first=given_first, bound=limits.log_scale)


class PlacedNetwork(nn.Module):
    """What values around a place, and the place itself, say about others there, by mean and log scale.

    It starts at zero, so that a coupling starts as the identity.

    Args:
        given: channels of the input.
        out: channels of the output.
        size: of the images, whose places have a bias each.
        width: hidden channels; 0: a single convolution.
        reach: see `Limits`.

    Shape:
        (B, given, size, size) -> (B, out, size, size).
    """

    keeps_input = True

    def __init__(self, given: int, out: int, size: int, width: int, reach: float | None = None) -> None:
        super().__init__()
        self.reach = reach
        hidden: list[nn.Module] = []
        if width:
            hidden = [
                Conv2d(given, width, 3, padding=1),
                InplaceLeakyReLU(0.01),
                Conv2d(width, width, 1),
                InplaceLeakyReLU(0.01),
            ]
        last = Conv2d(width or given, out, 3, padding=1)
        with torch.no_grad():
            for parameter in last.parameters():
                parameter.zero_()
        self.net = MixedSequential(*hidden, last)
        self.bias = nn.Parameter(torch.zeros(out, size, size))

    def forward(self, given: Tensor) -> Tensor:
        """Returns [mean ‖ log scale]."""
        seen = given if self.reach is None else self.reach * torch.tanh(given / self.reach)
        return self.net(seen) + self.bias
