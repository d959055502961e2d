"""Densities on the plane: standardised points, annealed noise, proposals that cover everything."""

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from led_fast.data import DataSource
from led_fast.density import (
    CoveringProposal,
    DensityModel,
    KernelProposal,
    ProposalDraw,
    by_quadrature,
    floored_target,
    squared_gradient,
)
from led_fast.evaluation import count_modes, quadrature_in_data_coordinates
from led_fast.flows import DiagonalNormal, OneWayFlow, ScoredSample
from led_fast.models import toy_balance
from led_fast.training.config import TrainConfig
from led_fast.training.feed import Feed
from led_fast.training.model import in_data_coordinates, plane_networks
from led_fast.training.schedule import geometric

_SMALLEST_SPACING = 1e-3  # standard deviations; a single point, drawn again and again, has none
_MONITOR_SAMPLES = 1000


class PlaneTask:
    """A `Task` in standardised coordinates, (x - shift) / scale.

    Args:
        config: of the run.
        source: its data.
    """

    device = torch.device("cpu")  # networks this small are slower on a GPU

    def __init__(self, config: TrainConfig, source: DataSource) -> None:
        recipe = config.recipe
        self.recipe, self.source = recipe, source
        with self.device:  # whatever torch's default device is
            critic, self.generator = plane_networks(config)
            self.balance: nn.Module | None = toy_balance()
            self.broad = DiagonalNormal(torch.zeros(2), recipe.broad_scale)
        self.critic: nn.Module = critic
        self._classifier = critic.net
        self.tilts = False
        self.feed: Feed | None = None
        self.spacing = max(typical_spacing(self._draw(recipe.blurred_points)), _SMALLEST_SPACING)
        self.widths = torch.logspace(math.log10(self.spacing), 0, recipe.blur_widths, device=self.device)
        balance = self.balance if recipe.balanced else None
        self.proposal = CoveringProposal(self.generator, self.broad, recipe.covering_share, balance)

    def discriminate(self, x: Tensor) -> Tensor:
        """The critic's network, without its tail."""
        return self._classifier(x)

    def squared_gradient(self, x: Tensor) -> Tensor:
        """Of the critic's network, without its tail."""
        return squared_gradient(self._classifier, x)

    def data(self, n: int, at: float) -> Tensor:
        """Draws n points, with the noise of that moment."""
        return self._draw(n, self._noise(at))

    def proposals(self, n: int, at: float) -> ProposalDraw:
        """Draws n samples from the generator, the blurred data and the broad normal."""
        if self.recipe.broad_share < 1:
            points = self._draw(self.recipe.blurred_points, self._noise(at))
            self.proposal.broad = KernelProposal(points, self.widths, self.broad, self.recipe.broad_share)
        return self.proposal.propose(n)

    def generated(self, n: int) -> ScoredSample:
        """Draws n samples with the score of their density."""
        return self.generator.rsample_with_score(n)

    def target(self, f: Tensor, sample: ScoredSample, log_normalizer: Tensor, at: float) -> Tensor:
        """The critic with a floor under it."""
        recipe = self.recipe
        floor = geometric(at, recipe.floor_start, recipe.floor_end, recipe.floor_from, recipe.floor_until)
        return floored_target(f, log_normalizer, self.broad.log_prob(sample.y), floor)

    def adopt(self, critic: nn.Module, generator: OneWayFlow) -> None:
        """Nothing: critics of the plane start from scratch."""

    def monitor(self, generator: OneWayFlow) -> dict[str, int]:
        """Modes that the generator reaches, where the truth is known."""
        source = self.source
        if source.mixture is None:
            return {}
        found = count_modes(
            source.shift + source.scale * generator.sample(_MONITOR_SAMPLES), source.mixture
        ).modes
        return {"modes": found, "modes_total": len(source.mixture.centers)}

    def preview(self, generator: OneWayFlow, path: Path) -> None:
        """Nothing: `density.png` is drawn at the end."""

    def model(self, critic: nn.Module, generator: OneWayFlow) -> DensityModel:
        """The density of data points, its log-normaliser by quadrature; a plain GAN has none."""
        model = in_data_coordinates(critic, generator, self.source.shift, self.source.scale)
        if self.recipe.objective == "led":
            quadrature = quadrature_in_data_coordinates(model.critic, self.source.shift, self.source.scale)
            model.set_verdict(by_quadrature(quadrature))
        return model

    def _noise(self, at: float) -> float:
        recipe = self.recipe
        return geometric(at, recipe.noise_start, recipe.noise_end * self.spacing, 0, recipe.noise_until)

    def _draw(self, n: int, noise: float = 0.0) -> Tensor:
        x = self.source.sample(n)
        standardized = ((x - self.source.shift) / self.source.scale).float()
        return standardized + noise * torch.randn_like(standardized)


def typical_spacing(points: Tensor) -> float:
    """Median distance of distinct points (N, D) to their nearest neighbour: the scale of the finest detail.

    A small table gives most of its rows twice; they count once. 0 where all points are one.
    """
    points = points.unique(dim=0)
    if len(points) == 1:
        return 0.0
    distance = (points[:, None] - points).norm(dim=-1)
    return distance.fill_diagonal_(math.inf).min(1).values.median().item()
