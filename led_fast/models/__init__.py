"""Generators and critics by preset name."""

from typing import Any as _Any
from warnings import warn as _warn

from led_fast.models.dcgan_critic import DCGANCritic
from led_fast.models.image import (
    IMAGE_PRESETS,
    ImagePreset,
    best_last_map,
    image_critic,
    image_generator,
    standardize,
)
from led_fast.models.image_critic import ImageCritic, ImageCriticConfig
from led_fast.models.image_generator import ImageGeneratorConfig
from led_fast.models.perceptron import GaussianTailCritic, Perceptron
from led_fast.models.points import (
    PRESETS,
    PointsCriticConfig,
    PointsGeneratorConfig,
    PointsPreset,
    points_balance,
    points_critic,
    points_generator,
)
from led_fast.models.standardized import StandardizedCritic, in_data_coordinates

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
    "PointsCriticConfig",
    "PointsGeneratorConfig",
    "PointsPreset",
    "StandardizedCritic",
    "best_last_map",
    "image_critic",
    "image_generator",
    "in_data_coordinates",
    "points_balance",
    "points_critic",
    "points_generator",
    "standardize",
]

_RENAMED = {
    "ToyCriticConfig": "PointsCriticConfig",
    "ToyGeneratorConfig": "PointsGeneratorConfig",
    "ToyPreset": "PointsPreset",
    "toy_balance": "points_balance",
    "toy_critic": "points_critic",
    "toy_generator": "points_generator",
}
"""Names of version 0.1.0, which 0.3.0 does without."""


def __getattr__(name: str) -> _Any:
    if name not in _RENAMED:
        raise AttributeError(f"module 'led_fast.models' has no attribute {name!r}")
    message = f"led_fast.models.{name} is {_RENAMED[name]} now; the old name goes with version 0.3.0"
    _warn(message, DeprecationWarning, stacklevel=2)
    return globals()[_RENAMED[name]]
