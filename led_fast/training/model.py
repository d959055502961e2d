"""The trained model in the data's own coordinates, and its file."""

import contextlib
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from led_fast.density import DensityModel, Verdict
from led_fast.errors import InputError
from led_fast.flows import Affine, OneWayFlow
from led_fast.models import (
    GaussianTailCritic,
    ImageCritic,
    ImageCriticConfig,
    ImageGeneratorConfig,
    ImagePreset,
    ToyCriticConfig,
    ToyGeneratorConfig,
    image_critic,
    image_generator,
    toy_critic,
    toy_generator,
)
from led_fast.random_state import isolated
from led_fast.training.checkpoint import load_state, save_state
from led_fast.training.config import TrainConfig
from led_fast.training.run import RunDirectory, read_json

_KIND = "model"


class TrainedModel(NamedTuple):
    """A model in eval mode, the config that it was trained by, and how many seconds that took."""

    model: DensityModel
    config: TrainConfig
    seconds: float


class StandardizedCritic(nn.Module):
    """A critic of standardised points as a function of data points: x -> f((x - shift) / scale).

    The subtraction is done in float64: data far from the origin lose nothing to it.

    Args:
        critic: (B, D) -> (B,).
        shift: (D,).
        scale: (D,), positive.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, critic: nn.Module, shift: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.critic = critic
        self.register_buffer("shift", shift.double())
        self.register_buffer("scale", scale.double())

    def forward(self, x: Tensor) -> Tensor:
        """Critic's value at data points x, (B, D) -> (B,)."""
        weight = next(self.critic.parameters())
        return self.critic(((x - self.shift) / self.scale).to(weight.dtype))


def in_data_coordinates(
    critic: nn.Module, generator: OneWayFlow, shift: Tensor, scale: Tensor
) -> DensityModel:
    """Joins a critic and a generator of standardised points into a density of data points.

    The generator's new last layer accounts for the log-determinant Σ log scale; the critic's is in log α.
    """
    rescaled = OneWayFlow(generator.base, [*generator.layers, Affine(scale.double(), shift.double())])
    return DensityModel(StandardizedCritic(critic, shift, scale), rescaled)


def save_model(run: RunDirectory, model: DensityModel, config: TrainConfig, seconds: float) -> None:
    """Writes `model.safetensors`."""
    save_state(
        run.model, _KIND, {"config": config.to_json(), "seconds": seconds, "model": dict(model.state_dict())}
    )


def load_model(run: RunDirectory) -> TrainedModel:
    """Reads `model.safetensors`.

    Raises:
        InputError: the run is not finished, or the file is truncated or foreign.
    """
    if not run.model.is_file():
        raise InputError(f"{run.path}: the run is not finished; go on with led-fast train … --resume")
    state = load_state(run.model, _KIND)
    config = TrainConfig.from_json(state["config"], str(run.model))
    with isolated(torch.get_default_device()):  # from the draws of weights that are not kept
        model = _untrained(config)
    try:
        model.load_state_dict(state["model"])
    except RuntimeError:
        raise InputError(
            f"{run.model}: does not fit the networks that this version of led_fast builds from its config"
        ) from None
    _adopt_last_verdict(run, model)
    return TrainedModel(model.eval(), config, state["seconds"])


def _adopt_last_verdict(run: RunDirectory, model: DensityModel) -> None:
    """A report that judges the log α in use knows more than the end of training did; a broken one nothing."""
    with contextlib.suppress(InputError):
        if (found := read_json(run.report).get("log_normalizer")) is None:
            return
        verdict = Verdict.from_json(found)
        if verdict.value == model.log_normalizer.item():
            model.set_verdict(verdict)


def plane_networks(config: TrainConfig) -> tuple[GaussianTailCritic, OneWayFlow]:
    """The untrained critic and generator of a run on points in the plane."""
    critic, generator = config.critic, config.generator
    assert isinstance(critic, ToyCriticConfig) and isinstance(generator, ToyGeneratorConfig)
    return toy_critic(critic), toy_generator(generator)


def image_networks(config: TrainConfig) -> tuple[ImageCritic, OneWayFlow]:
    """The untrained critic and generator of a run on images."""
    critic, generator = config.critic, config.generator
    assert isinstance(critic, ImageCriticConfig) and isinstance(generator, ImageGeneratorConfig)
    channels, height, width = config.shape
    preset = ImagePreset((channels, height, width), generator, critic)
    return image_critic(preset), image_generator(preset)


def _untrained(config: TrainConfig) -> DensityModel:
    if config.is_image:
        return DensityModel(*image_networks(config))
    unit = torch.ones(2)
    return in_data_coordinates(*plane_networks(config), 0 * unit, unit)


def load(run: str | Path) -> DensityModel:
    """Loads a finished run as a density in the data's own coordinates; of images, as pixels in [0, 1].

    Args:
        run: the folder that `led-fast train` wrote.

    Returns:
        A `DensityModel` in eval mode whose `log_prob(x)`, (B, 2) or (B, C, H, W) -> (B,), in nats, is normalised.

    Raises:
        InputError: the folder holds no run, an unfinished one, or a damaged model.
    """
    return load_model(RunDirectory.open(Path(run))).model
