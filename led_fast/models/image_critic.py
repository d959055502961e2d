"""Critics of images in the box [0, 1]: a DCGAN critic that tilts a density which is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from led_fast.flows import OneWayFlow
from led_fast.flows.contract import standard_normal_log_prob
from led_fast.flows.elementwise import logit
from led_fast.models.dcgan_critic import DCGANCritic, Penalty
from led_fast.models.image_networks import Shape


@dataclass(frozen=True)
class ImageCriticConfig:
    """A DCGAN critic of the image and its logits.

    Attributes:
        width: channels of the first layer.
        penalty: "direction" or "exact" subtracts the norms of what the layers do not look at (Sec. 2.2), see
            :func:`led_fast.perpendicular`; "off" does not.
        squared: subtract their squares instead.
        base: the density that the net tilts: "pixels", independent ones, or "generator", a copy of the generator
            as it was when the critic adopted it.
    """

    width: int = 24
    penalty: Penalty = "off"
    squared: bool = False
    base: Literal["pixels", "generator"] = "generator"


class ImageCritic(nn.Module):
    """`f(x) = net(x, t) + log b(x)` inside the box, -inf outside, with t the standardised logits of x.

    The base b is a normalised density. Independent pixels, normal in t with a learned mean and precision each,
    give f the tail that makes its integral finite and the scale of each pixel's noise, which for dequantised
    data lies far below what convolutions resolve. A frozen copy of the generator gives f, besides, all that the
    generator knows: after `adopt` the importance weights f / q start even, and log α at 0 where the net does.
    (An exponential tilt of a generator is known as a residual energy-based model, Deng et al. 2020.)

    Args:
        config: of the net.
        shape: of an image, (C, H, W).
        base: the generator to be frozen; None: independent pixels.

    Shape:
        x: (B, C, H, W). Output: (B,), in nats.
    """

    location: Tensor
    scale: Tensor

    def __init__(self, config: ImageCriticConfig, shape: Shape, base: OneWayFlow | None = None) -> None:
        super().__init__()
        self.config, self.shape = config, shape
        self.net = DCGANCritic(shape[1], 2 * shape[0], config.width, config.penalty, config.squared)
        self.base = IndependentPixels(shape) if base is None else FrozenFlow(base)
        self.register_buffer("location", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))

    def forward(self, x: Tensor) -> Tensor:
        """Returns f(x) = log N(x)."""
        logits = self.logits(x)
        t = (logits - self.location) / self.scale
        if isinstance(self.base, FrozenFlow):
            log_base = self.base(x)
        else:
            # -log x (1 - x) and -log scale turn a density of t into one of x.
            stretch = F.logsigmoid(logits) + F.logsigmoid(-logits) + self.scale.log()
            log_base = self.base(t) - stretch.flatten(1).sum(dim=1)
        inside = ((x >= 0) & (x <= 1)).flatten(1).all(dim=1)
        return torch.where(inside, self._net(x, t) + log_base, -torch.inf)

    @property
    def tilted(self) -> OneWayFlow | None:
        """The generator whose density this critic tilts; its samples have importance weights exp(net)."""
        return self.base.flow if isinstance(self.base, FrozenFlow) else None

    def adopt(self, generator: OneWayFlow) -> None:
        """Takes the generator's present density for the base, and lets the net start at 0.

        Raises:
            ValueError: the critic's base is of independent pixels.
        """
        if not isinstance(self.base, FrozenFlow):
            raise ValueError("ImageCritic.adopt: wanted a critic with base='generator', got base='pixels'")
        self.base.flow.load_state_dict(generator.state_dict())
        with torch.no_grad():
            for parameter in self.net.net[-1].parameters():
                parameter.zero_()

    def discriminate(self, x: Tensor) -> Tensor:
        """The net's value alone, (B,): the logit of a plain GAN's discriminator."""
        return self._net(x, (self.logits(x) - self.location) / self.scale)

    def _net(self, x: Tensor, t: Tensor) -> Tensor:
        return self.net(torch.cat([2 * x - 1, 0.3 * t], dim=1))

    def logits(self, x: Tensor) -> Tensor:
        """Logits of the pixels, finite at the box's edges too."""
        if tuple(x.shape[1:]) != self.shape:
            wanted = ", ".join(map(str, self.shape))
            raise ValueError(f"ImageCritic: x must have shape (B, {wanted}), got {tuple(x.shape)}")
        return logit(x)


class IndependentPixels(nn.Module):
    """The log density of independent normal values, with learned means and precisions: (B, *shape) -> (B,)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(shape))
        self.log_precision = nn.Parameter(torch.zeros(shape))

    def forward(self, t: Tensor) -> Tensor:
        """Returns the log density at t."""
        standardised = (t - self.mean) * (0.5 * self.log_precision).exp()
        return standard_normal_log_prob(standardised) + 0.5 * self.log_precision.sum()


class FrozenFlow(nn.Module):
    """The log density of a flow whose parameters are buffers, out of the reach of optimisers: (B, ...) -> (B,)."""

    def __init__(self, flow: OneWayFlow) -> None:
        super().__init__()
        self.flow = flow.eval()
        for module in flow.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                delattr(module, name)
                module.register_buffer(name, parameter.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Returns the flow's log density at x."""
        with torch.autocast(x.device.type, enabled=False):  # densities of a thousand pixels want all digits
            return self.flow.log_prob(x)
