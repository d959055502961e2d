"""A multi-scale flow onto images: cheap both ways, and cheapest from the image to the latent values.

As Glow (Kingma and Dhariwal 2018), but that its convolutions are the paper's circular ones, of any kernel, and that
bends by soft-ReLUs lie between them.
"""

from __future__ import annotations

from torch import nn

from led_fast.flows import Inflate, PixelShuffle, Unflatten
from led_fast.models.flow_steps import Limits, coupling_by_place, flow_steps
from led_fast.models.image_networks import Shape


def multiscale_layers(
    shape: Shape, steps: tuple[int, ...], width: int, kernel_size: int, limits: Limits
) -> tuple[int, list[nn.Module]]:
    """The number of latent values, and the layers from them to an image before its last map.

    From the image on, each scale puts squares of four pixels into channels, takes its `flow_steps`, and splits off half
    of the channels as finished noise; the coarsest keeps all.

    Args:
        shape: of the image, (C, H, W).
        steps: of each scale, from half of the image's size on.
        width: channels of the two hidden layers of the networks in couplings.
        kernel_size: of the convolutions.
        limits: of the couplings.

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
        layers += [PixelShuffle(2), *flow_steps(count, channels, size, width, kernel_size, limits)]
        if scale < len(steps) - 1:
            channels //= 2
            layers.append(coupling_by_place(2 * channels, size, 0, True, limits))
            layers.append(Inflate(channels))
    layers.append(Unflatten(channels, size, size))
    return channels * size * size, layers[::-1]
