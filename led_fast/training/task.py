"""What training needs to know of a kind of data: networks, batches, proposals, and what a finished model is."""

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from led_fast.data import DataSource
from led_fast.data.images import ImageSource
from led_fast.density import DensityModel, ProposalDraw
from led_fast.flows import OneWayFlow, ScoredSample
from led_fast.training.config import TrainConfig
from led_fast.training.feed import Feed
from led_fast.training.image import ImageTask, image_device
from led_fast.training.plane import PlaneTask
from led_fast.training.world import World

Source = DataSource | ImageSource


class Task(Protocol):
    """Data of one kind and the networks for it, in the coordinates in which they are trained.

    Arguments named `at` are the share of the run that is done, from 0 to 1; schedules go by it. Randomness is
    that of torch's global generators.

    Attributes:
        device: where the networks live.
        critic: f, (B, ...) -> (B,).
        generator: onto the same space.
        balance: a network of the proposals that learns along with the critic, None where there is none.
        tilts: whether the critic tilts the density of a generator, which it adopts.
        feed: what brings the data to a device; None where a step cannot be recorded, because it depends on `at` in
            other ways than by its stage.
    """

    device: torch.device
    critic: nn.Module
    generator: OneWayFlow
    balance: nn.Module | None
    tilts: bool
    feed: Feed | None

    def discriminate(self, x: Tensor) -> Tensor:
        """The critic's network as the classifier of a plain GAN, without tail or support: (B, ...) -> (B,)."""
        ...

    def squared_gradient(self, x: Tensor) -> Tensor:
        """Squared norm of the gradient of the critic's network at data x, in units that suit the data: (n,)."""
        ...

    def data(self, n: int, at: float) -> Tensor:
        """Draws n training points."""
        ...

    def proposals(self, n: int, at: float) -> ProposalDraw:
        """Draws n samples for the integral, without gradients."""
        ...

    def generated(self, n: int) -> ScoredSample:
        """Draws n samples of the generator, differentiable in its parameters."""
        ...

    def target(self, f: Tensor, sample: ScoredSample, log_normalizer: Tensor, at: float) -> Tensor:
        """What the generator aims at, from the critic's values f at a sample: (n,)."""
        ...

    def adopt(self, critic: nn.Module, generator: OneWayFlow) -> None:
        """Lets a critic start from the density of a generator, where it can."""
        ...

    def monitor(self, generator: OneWayFlow) -> dict[str, Any]:
        """Figures about a generator that are cheap enough to follow during training."""
        ...

    def preview(self, generator: OneWayFlow, path: Path) -> None:
        """Writes a picture of a generator's samples, where one is worth looking at during training."""
        ...

    def model(self, critic: nn.Module, generator: OneWayFlow) -> DensityModel:
        """A finished density, with its normaliser, in the data's own coordinates."""
        ...


def device_of(config: TrainConfig) -> torch.device:
    """Where a run's networks live."""
    return image_device() if config.is_image else PlaneTask.device


def make_task(config: TrainConfig, source: Source, world: World) -> Task:
    """Builds the task that a config and its data make, with fresh networks."""
    if not isinstance(source, ImageSource):
        return PlaneTask(config, source)
    return ImageTask(config, source, world.share(config.recipe.generator_batch, "generator_batch"))
