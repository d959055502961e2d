"""Generators and critics of images, by preset name."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from led_fast.flows import Affine, OneWayFlow
from led_fast.models.image_critic import ImageCritic, ImageCriticConfig
from led_fast.models.image_generator import ImageGeneratorConfig, build_generator
from led_fast.models.image_networks import Bend, Shape


@dataclass(frozen=True)
class ImagePreset:
    """A generator and a critic of images of one shape, (C, H, W)."""

    shape: Shape
    generator: ImageGeneratorConfig = field(default_factory=ImageGeneratorConfig)
    critic: ImageCriticConfig = field(default_factory=ImageCriticConfig)


_COUPLED = ImageGeneratorConfig(local_couplings=1)
_PAPER = ImageGeneratorConfig(
    latent=100,
    coupling_width=0,
    block_scales=None,
    activation="soft_relu",
    norm="batch",
    oversize=True,
    conditional="gaussian",
)
_PAPER_CRITIC = ImageCriticConfig(width=64, penalty="direction", base="pixels")

IMAGE_PRESETS: dict[str, ImagePreset] = {
    "tiny": ImagePreset(
        (1, 8, 8),
        replace(_COUPLED, latent=4, grid=2, coupling_width=8, local_width=8),
        ImageCriticConfig(width=8),
    ),
    "mnist32": ImagePreset((1, 32, 32), _COUPLED),
    "color32": ImagePreset((3, 32, 32), replace(_COUPLED, latent=64, kernel_size=7)),
    "color64": ImagePreset((3, 64, 64), replace(_COUPLED, latent=128, grid=8, kernel_size=7)),
    "paper_mnist32": ImagePreset((1, 32, 32), _PAPER, _PAPER_CRITIC),
    "paper_color32": ImagePreset((3, 32, 32), _PAPER, _PAPER_CRITIC),
    "paper_color64": ImagePreset((3, 64, 64), replace(_PAPER, grid=8), _PAPER_CRITIC),
}


def image_generator(preset: str | ImagePreset = "mnist32") -> OneWayFlow:
    """Builds the generator of a preset (a key of `IMAGE_PRESETS`, or one's own): samples (n, C, H, W) in (0, 1)."""
    chosen = _preset(preset)
    return build_generator(chosen.generator, chosen.shape)


def image_critic(preset: str | ImagePreset = "mnist32") -> ImageCritic:
    """Builds the critic of a preset (a key of `IMAGE_PRESETS`, or one's own): f(x), (B, C, H, W) -> (B,)."""
    chosen = _preset(preset)
    base = build_generator(chosen.generator, chosen.shape) if chosen.critic.base == "generator" else None
    return ImageCritic(chosen.critic, chosen.shape, base)


@torch.no_grad()
def standardize(generator: OneWayFlow, critic: ImageCritic, images: Tensor) -> None:
    """Starts both networks from the data's independent pixels: mean and deviation of each pixel's logit.

    Args:
        generator: from `image_generator`, not trained yet.
        critic: from `image_critic`, likewise.
        images: dequantised data, (n, C, H, W) in [0, 1]; a few thousand.
    """
    affine = next((layer for layer in reversed(generator.layers) if isinstance(layer, Affine)), None)
    if affine is None:
        raise TypeError("standardize: wanted a generator from image_generator, which ends in an Affine")
    logits = critic.logits(images)
    location, scale = logits.mean(dim=0), logits.std(dim=0).clamp(min=1.0)
    affine.shift.copy_(location)
    affine.scale.copy_(scale)
    critic.location.copy_(location)
    critic.scale.copy_(scale)
    for module in generator.modules():
        if isinstance(module, Bend):
            module.steepness.copy_(0.5 * scale)
            module.shift.copy_(0.5 * location)
    if critic.config.base == "generator":
        critic.adopt(generator)


def _preset(preset: str | ImagePreset) -> ImagePreset:
    if isinstance(preset, ImagePreset):
        return preset
    if preset not in IMAGE_PRESETS:
        raise ValueError(f"unknown preset {preset!r}: choose one of {', '.join(sorted(IMAGE_PRESETS))}")
    return IMAGE_PRESETS[preset]
