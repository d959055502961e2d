"""Generators and critics of images, by preset name."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import get_args

import torch
from torch import Tensor

from led_fast.flows import Affine, OneWayFlow
from led_fast.flows.dark import LEVEL
from led_fast.models.image_critic import ImageCritic, ImageCriticConfig
from led_fast.models.image_generator import ImageGeneratorConfig, LastMapName, build_generator, build_last_map
from led_fast.models.image_networks import Bend, Shape

_LEAST_SHARE = 0.05  # of values that are black, or white


@dataclass(frozen=True)
class ImagePreset:
    """A generator and a critic of images of one shape, (C, H, W).

    Example:
        >>> from led_fast.models import ImagePreset, image_generator
        >>> image_generator(ImagePreset((3, 32, 32))).sample(2).shape
        torch.Size([2, 3, 32, 32])
    """

    shape: Shape
    generator: ImageGeneratorConfig = field(default_factory=ImageGeneratorConfig)
    critic: ImageCriticConfig = field(default_factory=ImageCriticConfig)


_STEPS = ImageGeneratorConfig(coupling_width=16, local_steps=4, local_width=48, blocks=0, kernel_size=1)
# Most values within are about standard normal. After three minutes of CIFAR-10, .6 % of the samples have a value beyond
# 30 before the last map, and 7.9 % without a reach and with log scales up to 2; likelihood is not worse.
_MULTISCALE = ImageGeneratorConfig(
    scale_steps=(8, 4, 4),
    coupling_width=64,
    coupling_log_scale=1.0,
    coupling_reach=3.0,
    kernel_size=1,
    activation="learned_soft_relu",
)
# Weights of up to e⁵ hide less than .1 nats of log α from 20,000 draws, unless few of them are effective.
_MULTISCALE_CRITIC = ImageCriticConfig(cap=5.0)
_PAPER = ImageGeneratorConfig(
    latent=100,
    coupling_width=0,
    blocks=2,
    block_scales=None,
    activation="learned_soft_relu",
    oversize=True,
    conditional="gaussian",
    start="identity",
)
_PAPER_CRITIC = ImageCriticConfig(width=32, penalty="direction", base="pixels")

IMAGE_PRESETS: dict[str, ImagePreset] = {
    "tiny": ImagePreset(
        (1, 8, 8),
        ImageGeneratorConfig(latent=4, grid=2, coupling_width=8, local_couplings=1, local_width=8),
        ImageCriticConfig(width=8),
    ),
    "mnist32": ImagePreset((1, 32, 32), _STEPS),
    "color32": ImagePreset((3, 32, 32), _MULTISCALE, _MULTISCALE_CRITIC),
    "color64": ImagePreset((3, 64, 64), replace(_MULTISCALE, scale_steps=(8, 4, 4, 4)), _MULTISCALE_CRITIC),
    "paper_mnist32": ImagePreset((1, 32, 32), _PAPER, _PAPER_CRITIC),
    "paper_color32": ImagePreset((3, 32, 32), replace(_PAPER, grid=8), _PAPER_CRITIC),
    "paper_color64": ImagePreset((3, 64, 64), replace(_PAPER, grid=8, blocks=1), _PAPER_CRITIC),
}


def image_generator(preset: str | ImagePreset = "mnist32") -> OneWayFlow:
    """Builds the generator of a preset (a key of `IMAGE_PRESETS`, or one's own): samples (n, C, H, W) in (0, 1).

    Example:
        >>> from led_fast.models import image_generator
        >>> image_generator("tiny").sample(5).shape
        torch.Size([5, 1, 8, 8])
    """
    chosen = _preset(preset)
    return build_generator(chosen.generator, chosen.shape)


def image_critic(preset: str | ImagePreset = "mnist32") -> ImageCritic:
    """Builds the critic of a preset (a key of `IMAGE_PRESETS`, or one's own): f(x), (B, C, H, W) -> (B,).

    Example:
        >>> import torch
        >>> from led_fast.models import image_critic
        >>> image_critic("tiny")(torch.rand(5, 1, 8, 8)).shape
        torch.Size([5])
    """
    chosen = _preset(preset)
    base = build_generator(chosen.generator, chosen.shape) if chosen.critic.base == "generator" else None
    return ImageCritic(
        chosen.critic, chosen.shape, base, build_last_map(chosen.generator.last_map, learned=False)
    )


@torch.no_grad()
def standardize(generator: OneWayFlow, critic: ImageCritic, images: Tensor) -> None:
    """Starts both networks from the data's independent pixels: mean and deviation of each, before the last map.

    A generator whose convolutions are to see all pixels alike starts from those of each channel.

    Args:
        generator: from `image_generator`, not trained yet.
        critic: from `image_critic`, likewise.
        images: dequantised data, (n, C, H, W) in [0, 1]; a few thousand.

    Example:
        >>> import torch
        >>> from led_fast.models import image_critic, image_generator, standardize
        >>> generator, critic = image_generator("tiny"), image_critic("tiny")
        >>> standardize(generator, critic, torch.rand(100, 1, 8, 8))
    """
    affine = next((layer for layer in reversed(generator.layers) if isinstance(layer, Affine)), None)
    if affine is None:
        raise TypeError(
            "standardize: generator must end in an Affine, as those of image_generator do, got none"
        )
    coordinates = critic.coordinates(images)[0]
    location, scale = _moments(coordinates)
    alike = affine.shift.shape != location.shape
    starts = _moments(coordinates, over=(0, 2, 3)) if alike else (location, scale)
    for own, start in zip((affine.shift, affine.scale), starts, strict=True):
        own.copy_(start)
    critic.location.copy_(location)
    critic.scale.copy_(scale)
    for module in generator.modules():
        if isinstance(module, Bend):
            module.steepness.copy_(0.5 * starts[1])
            module.shift.copy_(0.5 * (starts[0] - critic.last_map.centre))
    if critic.config.base == "generator":
        critic.adopt(generator)


@torch.no_grad()
def best_last_map(images: Tensor) -> LastMapName:
    """The last map behind which independent normal pixels have the higher likelihood.

    Those of black and of white are for images of which one value in twenty is black, or white.

    Args:
        images: dequantised data, (n, C, H, W) in [0, 1]; a few thousand.

    Example:
        >>> import torch
        >>> from led_fast.models import best_last_map
        >>> best_last_map(torch.rand(200, 1, 8, 8) / 256)  # black pictures
        'dark'
    """

    def log_likelihood(name: LastMapName) -> float:
        coordinates, log_slope = build_last_map(name).to(images.device).by_elements(images)
        location, scale = _moments(coordinates)
        standardised = (coordinates - location) / scale
        return -(0.5 * standardised.square() + scale.log() + log_slope).mean().item()

    shares = {"sigmoid": 1.0, "dark": _share(images < LEVEL), "light": _share(images >= 1 - LEVEL)}
    return max((name for name in get_args(LastMapName) if shares[name] > _LEAST_SHARE), key=log_likelihood)


def _share(values: Tensor) -> float:
    return values.double().mean().item()


def _moments(coordinates: Tensor, over: tuple[int, ...] = (0,)) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each pixel, or of all pixels that are pooled by `over`.

    The latter is no less than that of dequantisation alone.
    """
    location, scale = coordinates.mean(over, keepdim=True), coordinates.std(over, keepdim=True)
    return location[0], scale[0].clamp(min=1.0)


def _preset(preset: str | ImagePreset) -> ImagePreset:
    if isinstance(preset, ImagePreset):
        return preset
    if preset not in IMAGE_PRESETS:
        raise ValueError(f"models: preset must be one of {', '.join(sorted(IMAGE_PRESETS))}, got {preset!r}")
    return IMAGE_PRESETS[preset]
