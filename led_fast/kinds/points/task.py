"""Training on points: standardised coordinates, annealed noise, proposals that cover everything."""

import math

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
from led_fast.kinds.points.settings import PointsModel
from led_fast.models import (
    GaussianTailCritic,
    in_data_coordinates,
    points_balance,
    points_critic,
    points_generator,
)
from led_fast.training.config import TrainConfig
from led_fast.training.schedule import geometric, linear
from led_fast.training.task import Task

_SMALLEST_SPACING = 1e-3  # standard deviations; a single point, drawn again and again, has none
_MONITOR_SAMPLES = 1000

DEVICE = torch.device("cpu")  # networks this small are slower on a GPU


def points_networks(model: PointsModel) -> tuple[GaussianTailCritic, OneWayFlow]:
    """The untrained critic and generator of standardised points."""
    return points_critic(model.critic, model.dim), points_generator(model.generator, model.dim)


class PointsTask(Task):
    """Training in standardised coordinates, (x - shift) / scale.

    Args:
        config: of the run.
        source: its data.
    """

    device = DEVICE

    def __init__(self, config: TrainConfig, source: DataSource) -> None:
        model: PointsModel = config.model
        self.settings, self.recipe, self.source = model, config.recipe, source
        coverage = model.coverage
        with self.device:  # whatever torch's default device is
            critic, self.generator = points_networks(model)
            self.balance: nn.Module | None = points_balance(model.dim)
            self.broad = DiagonalNormal(torch.zeros(model.dim), coverage.broad_scale)
        self.critic: nn.Module = critic
        self._classifier = critic.net
        self.spacing = max(typical_spacing(self._draw(coverage.blurred_points)), _SMALLEST_SPACING)
        self.widths = torch.logspace(math.log10(self.spacing), 0, coverage.blur_widths, device=self.device)
        balance = self.balance if coverage.balanced else None
        self.proposal = CoveringProposal(self.generator, self.broad, coverage.share, balance)

    def discriminate(self, x: Tensor) -> Tensor:
        """The critic's network, without its tail."""
        return self._classifier(x)

    def squared_gradient(self, x: Tensor) -> Tensor:
        """Of the critic's network, without its tail."""
        return squared_gradient(self._classifier, x)

    def data(self, n: int, at: float) -> Tensor:
        """Draws n points, with the noise of that moment."""
        return self._draw(n, self._noise(at))

    def most_generated(self, n: int) -> int:
        """See `CoveringProposal.most_generated`."""
        return self.proposal.most_generated(n)

    def proposals(self, n: int, at: float, drawn: ScoredSample | None = None) -> ProposalDraw:
        """Draws n samples from the generator, the blurred data and the broad normal."""
        coverage = self.settings.coverage
        if coverage.broad_share < 1:
            points = self._draw(coverage.blurred_points, self._noise(at))
            self.proposal.broad = KernelProposal(points, self.widths, self.broad, coverage.broad_share)
        return self.proposal.propose(n, drawn)

    def target(self, f: Tensor, sample: ScoredSample, log_normalizer: Tensor, at: float) -> Tensor:
        """The critic with a floor under it."""
        floor = self.settings.floor
        height = geometric(at, floor.start, floor.end, floor.begin, floor.until)
        return floored_target(f, log_normalizer, self.broad.log_prob(sample.y), height)

    def forward_weight(self, weight: float, at: float) -> float:
        """It falls, where it is told to."""
        sharpening = self.settings.sharpening
        if sharpening.end is None:
            return weight
        return linear(at, weight, sharpening.end, sharpening.begin, sharpening.until)

    def monitor(self, generator: OneWayFlow) -> dict[str, int]:
        """Modes that the generator reaches, where the truth is known."""
        source = self.source
        if source.mixture is None:
            return {}
        found = count_modes(
            source.shift + source.scale * generator.sample(_MONITOR_SAMPLES), source.mixture
        ).modes
        return {"modes": found, "modes_total": len(source.mixture.centers)}

    def model(self, critic: nn.Module, generator: OneWayFlow) -> DensityModel:
        """The density of data points, its log-normaliser by quadrature; a plain GAN has none."""
        model = in_data_coordinates(critic, generator, self.source.shift, self.source.scale)
        if self.recipe.has_density:
            quadrature = quadrature_in_data_coordinates(model.critic, self.source.shift, self.source.scale)
            model.set_verdict(by_quadrature(quadrature))
        return model

    def _noise(self, at: float) -> float:
        noise = self.settings.noise
        return geometric(at, noise.start, noise.end * self.spacing, 0, noise.until)

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
