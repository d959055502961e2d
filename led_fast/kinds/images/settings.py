"""Presets of images: networks, and how they are trained."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from led_fast.kinds.kind import Preset
from led_fast.models import IMAGE_PRESETS, ImageCriticConfig, ImageGeneratorConfig, ImagePreset
from led_fast.ranges import Count
from led_fast.training.settings import Batches, Calibration, GeneratorLoss, Optimizer, Penalty, Recipe


@dataclass(frozen=True)
class ImagesModel:
    """Networks for images.

    Attributes:
        shape: of the images, (C, H, W).
        generator: its networks.
        critic: its network.
    """

    shape: tuple[Count, Count, Count]
    generator: ImageGeneratorConfig = field(default_factory=ImageGeneratorConfig)
    critic: ImageCriticConfig = field(default_factory=ImageCriticConfig)

    def networks(self) -> ImagePreset:
        """The same for `led_fast.models`."""
        return ImagePreset(self.shape, self.generator, self.critic)


_RECIPE = Recipe(
    steps=8000,
    warm_up=0.7,
    ema=0.998,
    batches=Batches(data=64, integral_samples=1, integrals=64, generated=64, generator_steps=1),
    optimizer=Optimizer(
        critic_learning_rate=1e-3,
        generator_learning_rate=2e-3,
        betas=(0.5, 0.99),
        critic_betas=(0.0, 0.99),
        decay_from=0.6,
        gradient_clip=200.0,
    ),
    penalty=Penalty(weight=0.02, interval=4),
    generator_loss=GeneratorLoss(likelihood_weight=0.25, forward_weight=0.0),
    calibration=Calibration(begin=0.9),
)
# Steps of a flow learn fastest at a high rate. A critic that tilts the generator as it is takes less time for a step,
# and brings more: .901 bits per dimension and a Fréchet distance of 4.1 after four minutes on MNIST, where one that
# tilts the generator as it was at first had .914 and 5.0. Earlier, and with less likelihood, it makes samples better
# and likelihood worse: from 30 % on, at a weight of .1, .941 and 2.8.
# Held at an effective share of a quarter, as 64 draws tell it, a calibration can go on at a critic's usual rate: from
# the same generator of 49 minutes on MNIST, 2,700 steps gain .0017 bits per dimension, at a share of .38 and k̂ = .2,
# where resting at one half gained .0007; refined samples come to a distance of .5 instead of 1.
_STEPS = replace(
    _RECIPE,
    base="current",
    warm_up=0.5,
    batches=replace(_RECIPE.batches, integral_samples=64, integrals=1),
    optimizer=replace(
        _RECIPE.optimizer, generator_learning_rate=1e-2, betas=(0.9, 0.99), rise=50, decay_from=0.4
    ),
    generator_loss=replace(_RECIPE.generator_loss, likelihood_weight=0.15),
    calibration=replace(_RECIPE.calibration, learning_rate=1e-3, ess=0.0, held_ess=0.25),
)
# A flow of several scales wants a low rate soon. At .01, best in four minutes on CIFAR-10, a run of 30 diverged.
_MULTISCALE = replace(
    _STEPS,
    optimizer=replace(
        _STEPS.optimizer, generator_learning_rate=4e-3, decay_from=0.2, decay_until=0.7, decay_to=0.05
    ),
    generator_loss=replace(_RECIPE.generator_loss, likelihood_weight=0.25),
    calibration=_RECIPE.calibration,
)
_PAPER = replace(
    _RECIPE,
    warm_up=0.0,
    batches=replace(_RECIPE.batches, integral_samples=64, integrals=1),
    # A critic that is faster than a generator without couplings leaves it behind, and then it draws one image only.
    optimizer=replace(
        _RECIPE.optimizer,
        critic_learning_rate=1e-4,
        generator_learning_rate=3e-3,
        rise=50,
        full_rate_inputs=36,
    ),
    penalty=Penalty(weight=0.1, interval=4),
    generator_loss=replace(_RECIPE.generator_loss, likelihood_weight=0.8),
    # What drops coordinates is no density that could be tilted.
    calibration=replace(_RECIPE.calibration, begin=1.0),
)


def _recipe(name: str, generator: ImageGeneratorConfig) -> Recipe:
    if name.startswith("paper_"):
        return _PAPER
    if generator.scale_steps:
        return _MULTISCALE
    return _STEPS if generator.local_steps else _RECIPE


PRESETS: dict[str, Preset] = {
    name: Preset(
        ImagesModel(networks.shape, networks.generator, networks.critic),
        _recipe(name, networks.generator),
    )
    for name, networks in IMAGE_PRESETS.items()
}
"""A recipe for every pair of networks in `led_fast.models.IMAGE_PRESETS`."""

GAN: Mapping[str, Any] = {
    "recipe.objective": "gan",
    "recipe.optimizer.critic_learning_rate": 5e-4,
    "recipe.optimizer.generator_learning_rate": 2e-3,
    "recipe.optimizer.decay_from": 0.6,
    "recipe.optimizer.decay_until": 1.0,
    "recipe.optimizer.decay_to": 0.02,
    "recipe.optimizer.betas": (0.0, 0.99),
    "recipe.penalty.weight": 0.1,
    "model.critic.cap": None,
}
"""What a config changes to train a plain GAN."""
