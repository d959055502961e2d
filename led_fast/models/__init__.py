"""Generators and critics by preset name."""

from led_fast.models.dcgan_critic import DCGANCritic
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
    "PRESETS",
    "DCGANCritic",
    "GaussianTailCritic",
    "Perceptron",
    "ToyCriticConfig",
    "ToyGeneratorConfig",
    "ToyPreset",
    "toy_balance",
    "toy_critic",
    "toy_generator",
]
