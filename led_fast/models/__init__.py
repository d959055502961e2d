"""Generators and critics by preset name."""

from led_fast.models.dcgan_critic import DCGANCritic
from led_fast.models.image import IMAGE_PRESETS, ImagePreset, image_critic, image_generator, standardize
from led_fast.models.image_critic import ImageCritic, ImageCriticConfig
from led_fast.models.image_generator import ImageGeneratorConfig
from led_fast.models.points import (
    PointsCriticConfig,
    PointsGeneratorConfig,
    points_balance,
    points_critic,
    points_generator,
)
from led_fast.models.standardized import StandardizedCritic, in_data_coordinates
from led_fast.models.toy import (
    PRESETS,
    GaussianTailCritic,
    Perceptron,
    ToyCriticConfig,
    ToyGeneratorConfig,
    ToyPreset,
    toy_balance,
    toy_critic,
    toy_generator,
)

__all__ = [
    "IMAGE_PRESETS",
    "PRESETS",
    "DCGANCritic",
    "GaussianTailCritic",
    "ImageCritic",
    "ImageCriticConfig",
    "ImageGeneratorConfig",
    "ImagePreset",
    "Perceptron",
    "StandardizedCritic",
    "ToyCriticConfig",
    "ToyGeneratorConfig",
    "ToyPreset",
    "image_critic",
    "image_generator",
    "in_data_coordinates",
    "standardize",
    "toy_balance",
    "toy_critic",
    "toy_generator",
]
