"""The critic of DCGAN, less what its layers do not look at (LED, Sec. 2.2 and 2.3)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from led_fast.nn import (
    Conv2d,
    InplaceLeakyReLU,
    MixedSequential,
    PerpendicularConv2d,
    PerpendicularSequential,
)

Penalty = Literal["off", "direction", "exact"]


class DCGANCritic(nn.Module):
    """`f(x) = log N(x) = net(x) - Σ_k ‖x⊥_k‖` over every convolution k of a DCGAN discriminator.

    4x4 convolutions of stride 2 halve the image and double the channels, from `width` on, down to 4x4; a
    last one makes one number of it. Leaky ReLUs of slope 0.2 stand between them. There is no batch norm: the density of
    an image must not depend on the other images of its batch.

    Args:
        image_size: 8, 16, 32 or 64, height and width.
        channels: of the image, 1 or 3, or more where features of it are stacked on it.
        width: Channels of the first layer; 64 in DCGAN.
        penalty: "off" leaves the sum out; "direction" or "exact": what `x⊥` is perpendicular to, see
            :func:`led_fast.perpendicular`.
        squared: Subtract `Σ_k ‖x⊥_k‖²` instead.

    Shape:
        (B, channels, image_size, image_size) -> (B,), in nats.

    Raises:
        ValueError: An argument is none of those above.

    Example:
        >>> import torch
        >>> from led_fast.models import DCGANCritic
        >>> DCGANCritic(32, channels=1)(torch.rand(4, 1, 32, 32)).shape
        torch.Size([4])
    """

    def __init__(
        self,
        image_size: int = 32,
        channels: int = 3,
        width: int = 64,
        penalty: Penalty = "direction",
        squared: bool = False,
    ) -> None:
        super().__init__()
        if image_size not in (8, 16, 32, 64):
            raise ValueError(f"DCGANCritic: image_size must be 8, 16, 32 or 64, got {image_size}")
        if channels < 1 or width < 1:
            raise ValueError(f"DCGANCritic: channels and width must be positive, got {channels} and {width}")
        if penalty not in ("off", "direction", "exact"):
            raise ValueError(f"DCGANCritic: penalty must be 'off', 'direction' or 'exact', got {penalty!r}")
        self.image_shape, self.penalized = (channels, image_size, image_size), penalty != "off"
        layers: list[nn.Module] = []
        while image_size > 4:
            layers += [_convolution(penalty, channels, width, stride=2, padding=1), InplaceLeakyReLU(0.2)]
            channels, width, image_size = width, 2 * width, image_size // 2
        layers.append(_convolution(penalty, channels, 1))
        self.net = (
            PerpendicularSequential(*layers, squared=squared) if self.penalized else MixedSequential(*layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Returns f(x), the unnormalised log density of each image."""
        if tuple(x.shape[1:]) != self.image_shape:
            wanted = ", ".join(map(str, self.image_shape))
            raise ValueError(f"DCGANCritic: x must have shape (B, {wanted}), got {tuple(x.shape)}")
        if not self.penalized:
            return self.net(x).flatten()
        value, penalty = self.net(x)
        return value.flatten() - penalty


def _convolution(penalty: Penalty, channels: int, outs: int, stride: int = 1, padding: int = 0) -> nn.Conv2d:
    if penalty == "off":
        return Conv2d(channels, outs, 4, stride, padding)
    return PerpendicularConv2d(channels, outs, 4, stride, padding, mode=penalty)
