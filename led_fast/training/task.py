"""What training needs to know of data: networks, batches, proposals, and what a finished model is."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from led_fast.density import DensityModel, ProposalDraw, eval_mode
from led_fast.flows import OneWayFlow, ScoredSample
from led_fast.training.feed import Feed


class Source(Protocol):
    """Data of one kind, opened.

    Attributes:
        kind: name of the kind, see `led_fast.kinds`.
        name: what a run records: a file, a folder, or the name of a distribution.
        fingerprint: of the content; a run resumes on the same content only.
    """

    kind: str
    name: str
    fingerprint: str


class Task(ABC):
    """Data of one kind and the networks for it, in the coordinates in which they are trained.

    Arguments named `at` are the share of the run that is done, from 0 to 1; schedules go by it. Randomness is
    that of torch's global generators.

    Attributes:
        device: where the networks live.
        critic: f, (B, ...) -> (B,).
        generator: onto the same space.
        balance: a network of the proposals that learns along with the critic, None where there is none.
        tilts: whether the critic tilts the density of a generator, which it adopts.
        anchored: whether log α of a tilt is held near 0, because the tilt has a cap.
        feed: what brings the data to a device; None where a step cannot be recorded, because it depends on `at` in
            other ways than by its stage.
    """

    device: torch.device
    critic: nn.Module
    generator: OneWayFlow
    balance: nn.Module | None = None
    tilts: bool = False
    anchored: bool = False
    feed: Feed | None = None

    @abstractmethod
    def data(self, n: int, at: float) -> Tensor:
        """Draws n training points."""

    @abstractmethod
    def model(self, critic: nn.Module, generator: OneWayFlow) -> DensityModel:
        """A finished density, with its normaliser, in the data's own coordinates."""

    def most_generated(self, n: int) -> int:
        """How many of n proposals are samples of the generator, at most; `proposals` takes that many where drawn."""
        return n

    def proposals(self, n: int, at: float, drawn: ScoredSample | None = None) -> ProposalDraw:
        """Draws n samples for the integral, without gradients: those of the generator.

        Where the recipe's base is "current", all n must be, and their log_q counts as 0.

        Args:
            n: how many.
            at: share of the run.
            drawn: samples of the generator to take instead of fresh ones, at least `most_generated(n)`.
        """
        if drawn is not None:
            return ProposalDraw(drawn.y[:n].detach(), drawn.log_q[:n].detach(), None)
        with torch.no_grad():
            return ProposalDraw(*self.generator.rsample_and_log_prob(n), None)

    def generated(self, n: int) -> ScoredSample:
        """Draws n samples of the generator, differentiable in its parameters."""
        return self.generator.rsample_with_score(n)

    def target(self, f: Tensor, sample: ScoredSample, log_normalizer: Tensor, at: float) -> Tensor:
        """What the generator aims at, from the critic's values f at a sample, (n,): the critic itself.

        Where the recipe's base is "current", f, `sample` and log α are relative to the generator's density.
        """
        return f

    def forward_weight(self, weight: float, at: float) -> float:
        """The weight of the forward KL in the generator's loss, from that of the recipe: the same all along."""
        return weight

    def discriminate(self, x: Tensor) -> Tensor:
        """The critic's network as a classifier, without tail, support or what it tilts: (B, ...) -> (B,)."""
        return self.critic(x)

    def squared_gradient(self, x: Tensor) -> Tensor:
        """Squared norm of the gradient of `discriminate` at data x, in units that suit the data: (n,)."""
        raise NotImplementedError(f"{type(self).__name__} has no gradient penalty")

    def begin(self, stage: str, share: float = 1.0) -> None:  # noqa: B027 (most kinds need none)
        """Makes ready for the steps of a stage, or for the rest of them; the same each time it is called for it.

        Args:
            stage: its name.
            share: of the work; less than 1 where only its time is to be known, and a few steps are taken.
        """

    def adopt(self, critic: nn.Module, generator: OneWayFlow) -> None:  # noqa: B027
        """Lets a critic start from the density of a generator, where it can."""

    def tilted_samples(self, n: int) -> Tensor:
        """Draws n samples of the generator that the critic tilts, as `discriminate` takes them, without gradients."""
        with eval_mode(self.generator):  # at rest, as its statistics are to be
            return self.generator.sample(n)

    def validate(self, critic: nn.Module, generator: OneWayFlow, stage: str) -> float | None:
        """How good averaged networks are on validation data, higher is better; None where that is not judged."""
        return None

    def monitor(self, generator: OneWayFlow) -> dict[str, Any]:
        """Figures about a generator that are cheap enough to follow during training."""
        return {}

    def preview(self, generator: OneWayFlow, path: Path) -> None:  # noqa: B027
        """Writes a picture of a generator's samples, where one is worth looking at during training."""
