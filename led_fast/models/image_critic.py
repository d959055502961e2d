"""Critics of images in the box [0, 1]: a DCGAN critic on top of independent pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from led_fast.models.dcgan_critic import DCGANCritic, Penalty
from led_fast.models.image_networks import Shape

_EDGE = 1e-6  # logits end here: float32 knows no value between 1 - 6e-8 and 1


@dataclass(frozen=True)
class ImageCriticConfig:
    """A DCGAN critic of the image and its logits.

    Attributes:
        width: channels of the first layer.
        penalty: "direction" or "exact" subtracts the norms of what the layers do not look at (Sec. 2.2), see
            :func:`led_fast.perpendicular`; "off" does not.
        squared: subtract their squares instead.
    """

    width: int = 24
    penalty: Penalty = "off"
    squared: bool = False


class ImageCritic(nn.Module):
    """`f(x) = net(x, t) + log b(x)` inside the box, -inf outside; b, a density of independent pixels.

    With `t = (logit x - location) / scale`, b is normal in t with a learned mean and precision for each
    pixel. It gives f the tail that makes its integral finite, and the scale of each pixel's noise, which for
    dequantised data lies far below what the convolutions resolve. `location` and `scale` are the data's, see
    `led_fast.models.standardize`.

    Args:
        config: of the net.
        shape: of an image, (C, H, W).

    Shape:
        x: (B, C, H, W). Output: (B,), in nats.
    """

    location: Tensor
    scale: Tensor

    def __init__(self, config: ImageCriticConfig, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.net = DCGANCritic(shape[1], 2 * shape[0], config.width, config.penalty, config.squared)
        self.mean = nn.Parameter(torch.zeros(shape))
        self.log_precision = nn.Parameter(torch.zeros(shape))
        self.register_buffer("location", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))

    def forward(self, x: Tensor) -> Tensor:
        """Returns f(x) = log N(x)."""
        logits = self._logits(x)
        t = (logits - self.location) / self.scale
        standardised = (t - self.mean) * (0.5 * self.log_precision).exp()
        log_density = 0.5 * self.log_precision - self.scale.log() - 0.5 * math.log(2 * math.pi)
        # -log x (1 - x) turns a density of logits into one of x.
        log_base = log_density - 0.5 * standardised.square() - F.logsigmoid(logits) - F.logsigmoid(-logits)
        value = self._net(x, t) + log_base.flatten(1).sum(dim=1)
        inside = ((x >= 0) & (x <= 1)).flatten(1).all(dim=1)
        return torch.where(inside, value, -torch.inf)

    def discriminate(self, x: Tensor) -> Tensor:
        """The net's value alone, (B,): the logit of a plain GAN's discriminator."""
        return self._net(x, (self._logits(x) - self.location) / self.scale)

    def _net(self, x: Tensor, t: Tensor) -> Tensor:
        return self.net(torch.cat([2 * x - 1, 0.3 * t], dim=1))

    def _logits(self, x: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != self.shape:
            wanted = ", ".join(map(str, self.shape))
            raise ValueError(f"ImageCritic: x must have shape (B, {wanted}), got {tuple(x.shape)}")
        return torch.logit(x, eps=_EDGE)
