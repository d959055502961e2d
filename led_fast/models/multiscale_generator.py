"""A multi-scale flow onto images: cheap both ways, and cheapest from the image to the latent values.

As Glow (Kingma and Dhariwal 2018), but that its convolutions are the paper's circular ones, of any kernel, and that
bends by soft-ReLUs lie between them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from led_fast.flows import Coupling, Inflate, Inverse, PixelShuffle, SoftReLU, Unflatten
from led_fast.models.image_networks import Shape
from led_fast.nn import CircularConv2d, Conv2d, InplaceLeakyReLU, MixedSequential

_LARGEST_LOG_SCALE = 2.0


def multiscale_layers(
    shape: Shape, steps: tuple[int, ...], width: int, kernel_size: int
) -> tuple[int, list[nn.Module]]:
    """The number of latent values, and the layers from them to an image before its last map.

    From the image on, each scale puts squares of four pixels into channels, takes its `flow_steps`, and splits off half
    of the channels as finished noise; the coarsest keeps all.

    Args:
        shape: of the image, (C, H, W).
        steps: of each scale, from half of the image's size on.
        width: channels of the two hidden layers of the networks in couplings.
        kernel_size: of the convolutions.

    Raises:
        ValueError: an image of this size has not as many scales.
    """
    channels, size, _ = shape
    if not steps or size % 2 ** len(steps):
        raise ValueError(
            f"image_generator: scale_steps must name a scale or more, and {size} be a multiple of 2 to the power of "
            f"their number, got {len(steps)}"
        )
    layers: list[nn.Module] = []  # from the image to the latent values
    for scale, count in enumerate(steps):
        channels, size = 4 * channels, size // 2
        layers += [PixelShuffle(2), *flow_steps(count, channels, size, width, kernel_size)[::-1]]
        if scale < len(steps) - 1:
            channels //= 2
            layers.append(_coupling(2 * channels, size, 0, given_first=True))
            layers.append(Inflate(channels))
    layers.append(Unflatten(channels, size, size))
    return channels * size * size, layers[::-1]


def flow_steps(count: int, channels: int, size: int, width: int, kernel_size: int) -> list[nn.Module]:
    """Steps of {affine coupling, soft-ReLU, circular convolution}, from noise to image.

    The latter two run backward, so that the way from an image to noise is the cheap one.

    Args:
        count: of the steps.
        channels: of the images, even.
        size: of the images.
        width: channels of the two hidden layers of the networks in couplings.
        kernel_size: of the convolutions.
    """
    layers: list[nn.Module] = []
    for left in range(count, 0, -1):
        layers += [
            _coupling(channels, size, width, given_first=left % 2 == 0),
            Inverse(SoftReLU(features=channels, learned=True)),
            Inverse(CircularConv2d(channels, kernel_size)),
        ]
    return layers


def _coupling(channels: int, size: int, width: int, given_first: bool) -> Coupling:
    half = channels // 2
    network = PlacedNetwork(half, channels, size, width)
    return Coupling(network, channels, half, given_first=given_first, bound=_LARGEST_LOG_SCALE)


class PlacedNetwork(nn.Module):
    """What values around a place, and the place itself, say about others there, by mean and log scale.

    It starts at zero, so that a coupling starts as the identity.

    Args:
        given: channels of the input.
        out: channels of the output.
        size: of the images, whose places have a bias each.
        width: hidden channels; 0: a single convolution.

    Shape:
        (B, given, size, size) -> (B, out, size, size).
    """

    keeps_input = True

    def __init__(self, given: int, out: int, size: int, width: int) -> None:
        super().__init__()
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
        return self.net(given) + self.bias
