"""A critic that tilts its own generator, untrained."""

import torch
from flow_oracles import randomize

from led_fast.density import DensityModel
from led_fast.models import IMAGE_PRESETS, ImageCriticConfig, ImagePreset, image_critic, image_generator


def tilting_model(cap: float | None = 2.0, scale: float = 0.3) -> DensityModel:
    """At this scale of its random parameters rounding some log densities alone would make weights of e^100."""
    preset = ImagePreset((1, 8, 8), IMAGE_PRESETS["tiny"].generator, ImageCriticConfig(width=8, cap=cap))
    torch.manual_seed(0)
    generator, critic = randomize(image_generator(preset), scale), image_critic(preset)
    critic.adopt(generator)
    randomize(critic, 0.3)
    return DensityModel(critic, generator).eval()
