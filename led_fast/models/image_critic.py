"""Critics of images in the box [0, 1]: a DCGAN critic that tilts a density which is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from led_fast.density.mode import eval_mode
from led_fast.flows import OneWayFlow, Sigmoid
from led_fast.flows.contract import standard_normal_log_prob, sum_event
from led_fast.flows.elementwise import LastMap
from led_fast.models.cap import capped
from led_fast.models.dcgan_critic import DCGANCritic, Penalty
from led_fast.models.image_networks import Shape
from led_fast.ops.autocast import widened
from led_fast.random_state import seeded
from led_fast.ranges import Count, Positive

_COMPARED = 2  # images


@dataclass(frozen=True)
class ImageCriticConfig:
    """A DCGAN critic of the image in two kinds of coordinates.

    Attributes:
        width: channels of the first layer.
        penalty: "direction" or "exact" subtracts the norms of what the layers do not look at (Sec. 2.2), see
            :func:`led_fast.perpendicular`; "off" does not.
        squared: subtract their squares instead.
        base: the density that the net tilts: "pixels", independent ones, or "generator", a copy of the generator
            as it was when the critic adopted it (in joint training, the recipe's `base` may ask for the net alone).
        cap: the net comes to no more than cap + log(1 + e^-cap) nats, smoothly; so that a sample of the generator that
            it tilts has a bounded weight, also far out, where the net was never trained. None: there is no bound. Only
            for the base "generator".

    Example:
        >>> from led_fast.models import ImageCriticConfig, ImagePreset, image_critic
        >>> critic = image_critic(ImagePreset((1, 32, 32), critic=ImageCriticConfig(width=8)))
    """

    width: Count = 24
    penalty: Penalty = "off"
    squared: bool = False
    base: Literal["pixels", "generator"] = "generator"
    cap: Positive | None = None


class ImageCritic(nn.Module):
    """`f(x) = net(x, t) + log b(x)` inside the box, -inf outside, where t is x before a last map, standardised.

    The base b is a normalised density. Independent pixels, normal in t with a learned mean and precision each,
    give f the tail that makes its integral finite and the scale of each pixel's noise, which for dequantised
    data lies far below what convolutions resolve. A frozen copy of the generator gives f, besides, all that the
    generator knows: after `adopt` the importance weights f / q start even, and log α at 0 where the net does.
    (An exponential tilt of a generator is known as a residual energy-based model, Deng et al. 2020.)

    Args:
        config: of the net.
        shape: of an image, (C, H, W).
        base: the generator to be frozen; None: independent pixels.
        last_map: whose coordinates t are of, fixed; default: logits.

    Raises:
        ValueError: the config has a cap, but no generator is given.

    Shape:
        x: (B, C, H, W). Output: (B,), in nats.

    Example:
        >>> import torch
        >>> from led_fast.models import ImageCritic, ImageCriticConfig
        >>> ImageCritic(ImageCriticConfig(width=8, base="pixels"), (1, 32, 32))(torch.rand(5, 1, 32, 32)).shape
        torch.Size([5])
    """

    location: Tensor
    scale: Tensor

    def __init__(
        self,
        config: ImageCriticConfig,
        shape: Shape,
        base: OneWayFlow | None = None,
        last_map: LastMap | None = None,
    ) -> None:
        super().__init__()
        if config.cap is not None and base is None:
            raise ValueError(f"ImageCritic: cap must be None where base is 'pixels', got {config.cap}")
        self.last_map = Sigmoid() if last_map is None else last_map
        self.config, self.shape = config, shape
        self.net = DCGANCritic(shape[1], 2 * shape[0], config.width, config.penalty, config.squared)
        self.base = IndependentPixels(shape) if base is None else FrozenFlow(base)
        self.register_buffer("location", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))

    def forward(self, x: Tensor) -> Tensor:
        """Returns f(x) = log N(x), in float32 of half-precision x too."""
        x = self._widened(x)
        coordinates, log_slope = self.last_map.by_elements(x)
        t = (coordinates - self.location) / self.scale
        # -log dx/dt turns a density of t into one of x.
        if isinstance(self.base, IndependentPixels):
            log_base = self.base(t) - sum_event(log_slope + self.scale.log())
        elif isinstance(self.last_map, Sigmoid):
            log_base = self.base.from_logits(coordinates, log_slope)
        else:
            log_base = self.base(x)
        inside = (x == x.clamp(0, 1)).flatten(1).all(dim=1)
        return torch.where(inside, self._net(x, t) + log_base, -torch.inf)

    @property
    def tilted(self) -> OneWayFlow | None:
        """The generator whose density this critic tilts; its samples have importance weights exp(net)."""
        return self.base.flow if isinstance(self.base, FrozenFlow) else None

    def tilt_of(self, generator: OneWayFlow) -> Callable[[Tensor], Tensor] | None:
        """The net, where it tilts the density that this generator has now; else None.

        That is so where both have the same state, and make the same images of the same noise.
        """
        if self.tilted is None or not _equal(self.tilted.state_dict(), generator.state_dict()):
            return None
        drawn = []
        for flow in (self.tilted, generator):
            with torch.no_grad(), eval_mode(flow), seeded(0, self.scale.device):
                drawn.append(flow.sample(_COMPARED))
        return self.discriminate if torch.equal(*drawn) else None

    def adopt(self, generator: OneWayFlow) -> None:
        """Takes the generator's present density for the base, and lets the net start at 0.

        Raises:
            ValueError: the critic's base is of independent pixels.
        """
        if not isinstance(self.base, FrozenFlow):
            raise ValueError("ImageCritic.adopt: base must be 'generator', got 'pixels'")
        self.base.flow.load_state_dict(generator.state_dict())
        with torch.no_grad():
            for parameter in self.net.net[-1].parameters():
                parameter.zero_()

    def discriminate(self, x: Tensor) -> Tensor:
        """The net's value alone, (B,): the logit of a plain GAN's discriminator."""
        x = self._widened(x)
        return self._net(x, (self.coordinates(x)[0] - self.location) / self.scale)

    def _net(self, x: Tensor, t: Tensor) -> Tensor:
        value = self.net(torch.cat([2 * x - 1, 0.3 * t], dim=1))
        return value if self.config.cap is None else capped(value, self.config.cap)

    def coordinates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The pixels before the last map, finite at the box's edges too, and log dx/dt; (B, C, H, W) each."""
        self._check(x)
        return self.last_map.by_elements(x)

    def unit(self, x: Tensor) -> Tensor:
        """By how much the pixels of x change where t does by 1, (B, C, H, W)."""
        return self.last_map.slope(x) * self.scale

    def _widened(self, x: Tensor) -> Tensor:
        self._check(x)
        return widened(x, self)

    def _check(self, x: Tensor) -> None:
        if not x.is_floating_point():  # bytes, which lie outside the box
            raise TypeError(
                f"ImageCritic: x must be floating-point in [0, 1], got {x.dtype}; "
                "led_fast.data.images.dequantize makes bytes so"
            )
        if tuple(x.shape[1:]) != self.shape:
            wanted = ", ".join(map(str, self.shape))
            raise ValueError(f"ImageCritic: x must have shape (B, {wanted}), got {tuple(x.shape)}")


def _equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


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
    """The log density of a flow whose parameters are buffers, out of the reach of optimisers: (B, ...) -> (B,).

    The flow stays in eval mode, so that its statistics rest, too.
    """

    def __init__(self, flow: OneWayFlow) -> None:
        super().__init__()
        self.flow = flow.eval()
        for module in flow.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                delattr(module, name)
                module.register_buffer(name, parameter.detach())

    def train(self, mode: bool = True) -> FrozenFlow:
        """Sets the mode of this module alone."""
        super().train(mode)
        self.flow.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Returns the flow's log density at x."""
        return self.flow.log_prob(x)

    def from_logits(self, logits: Tensor, log_slope: Tensor) -> Tensor:
        """As `forward`, at x in the box of which the logits, and the log of `x (1 - x)`, are known by pixels."""
        return self.flow.log_prob_before_last(logits) - sum_event(log_slope)
