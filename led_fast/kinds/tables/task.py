"""Training on tables: a flow of normal columns by maximum likelihood, then a tilt of its density."""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from led_fast.data.tables import TableSource
from led_fast.density import (
    DensityModel,
    Witness,
    effective_sample_size,
    estimate_bounded_log_normalizer,
    eval_mode,
    judge,
    log_mean_exp,
)
from led_fast.flows import Marginal, OneWayFlow
from led_fast.kinds.tables.settings import TablesModel
from led_fast.models.tables import (
    CappedTilt,
    TableCoordinates,
    standardized,
    table_density,
    table_generator,
)
from led_fast.random_state import seeded
from led_fast.training.config import TrainConfig
from led_fast.training.settings import CALIBRATION
from led_fast.training.task import Task

DEVICE = torch.device("cpu")  # networks this small are slower on a GPU

_LEAST_ESS = 0.1  # share of effective weights below which a tilt is not taken
_AT_A_TIME = 4000  # rows; of 10,000 what layers hand on leaves the cache, and draws cost 40 % more
_NORMALIZER_DRAWS = 100_000


def coordinates_of(model: TablesModel, marginal: Marginal, shift: Tensor, scale: Tensor) -> TableCoordinates:
    """The coordinates of a table's columns."""
    steps, offsets = zip(*((column.step, column.offset) for column in model.columns), strict=True)
    return TableCoordinates(marginal, shift, scale, steps, offsets)


class TablesTask(Task):
    """Training in coordinates in which every column is normal by itself.

    Args:
        config: of the run.
        source: its data.
    """

    device = DEVICE
    tilts = True

    def __init__(self, config: TrainConfig, source: TableSource) -> None:
        model: TablesModel = config.model
        self.settings, self.source, self.seed = model, source, config.seed
        recipe = config.recipe
        self._begin_tilt = recipe.calibration.begin
        # No more than its steps can take.
        steps = math.ceil((1 - self._begin_tilt) * config.steps)
        self._draws = min(
            model.pool.draws, max(steps * recipe.calibration.samples, model.pool.validation_draws)
        )
        self._rows = min(model.pool.rows, max(steps * recipe.batches.data, model.pool.validation_rows))
        with self.device:
            self.coordinates = coordinates_of(
                model, copy.deepcopy(source.marginal), source.shift, source.scale
            )
            self.critic: nn.Module = CappedTilt(self.coordinates.features, model.critic)
            self.generator = table_generator(model.generator, len(model.columns))
        with seeded(config.seed):
            validation = source.dequantize(source.rows("validation", model.pool.validation_rows))
        self._validation = self.coordinates.normal(validation)
        self._validation_rows = validation
        self._mean = torch.zeros(self.coordinates.features, dtype=torch.float32)
        self._scale = torch.ones(self.coordinates.features, dtype=torch.float32)
        self._pool = self._data = self._validation_pool = self._validation_data = torch.empty(0)

    def data(self, n: int, at: float) -> Tensor:
        """Draws n training rows, dequantised afresh, as normal columns; for the tilt, what it looks at."""
        if at >= self._begin_tilt:
            return self._data[torch.randint(len(self._data), (n,))]
        return self.coordinates.normal(self.source.dequantize(self.source.sample(n)))

    def tilted_samples(self, n: int) -> Tensor:
        """Draws n of the pool."""
        return self._pool[torch.randint(len(self._pool), (n,))]

    def discriminate(self, x: Tensor) -> Tensor:
        """The tilt of standardised features."""
        return self.critic(x)

    def begin(self, stage: str, share: float = 1.0) -> None:
        """Draws the pool, from the finished flow, by random numbers of its own."""
        if stage != CALIBRATION:
            return
        pool, source = self.settings.pool, self.source
        with seeded(self.seed + 1), torch.no_grad(), eval_mode(self.generator):
            draws, at_most = math.ceil(share * self._draws), math.ceil(share * self._rows)
            drawn, aside = self._drawn(draws), self._drawn(math.ceil(share * pool.validation_draws))
            rows = source.rows("train", at_most)
            discrete = any(column.discrete for column in source.columns)
            copies = max(1, at_most // len(rows)) if discrete else 1
            held_out = self._validation_rows[: math.ceil(share * len(self._validation_rows))]
            data = self._look(source.dequantize(rows.repeat(copies, 1)))
        self._mean, self._scale = drawn.mean(0), drawn.std(0).clamp(min=1e-3)
        looks = (drawn, aside, data, self._look(held_out))
        self._pool, self._validation_pool, self._data, self._validation_data = (
            standardized(look, self._mean, self._scale) for look in looks
        )

    @torch.no_grad()
    def validate(self, critic: nn.Module, generator: OneWayFlow, stage: str) -> float:
        """Mean log density of validation rows as normal columns; of a tilt, what it adds, if its weights are fit."""
        if stage != CALIBRATION:
            return _values(generator.log_prob, self._validation).mean().item()
        weights = _values(critic, self._validation_pool)
        if not effective_sample_size(weights) >= _LEAST_ESS * len(weights):
            return -math.inf
        return (_values(critic, self._validation_data).mean() - log_mean_exp(weights)).item()

    def model(self, critic: nn.Module, generator: OneWayFlow) -> DensityModel:
        """The density in the data's units, its log-normaliser by fresh draws."""
        assert isinstance(critic, CappedTilt)
        model = table_density(critic, generator, self.coordinates, self._mean, self._scale).eval()
        with seeded(self.seed + 2):
            estimate = estimate_bounded_log_normalizer(
                model.critic, model.generator, critic.bound, _NORMALIZER_DRAWS
            )
        witness = Witness(estimate, "nothing: the generator reaches everywhere", "bounded")
        model.set_verdict(judge("generator", {"generator": witness}))
        return model

    def _drawn(self, n: int) -> Tensor:
        parts = [min(_AT_A_TIME, n - start) for start in range(0, n, _AT_A_TIME)]
        columns = (self.generator.sample(m) for m in parts)
        return torch.cat([self.coordinates.look(self.coordinates(t)[0], t) for t in columns])

    def _look(self, rows: Tensor) -> Tensor:
        return torch.cat([self.coordinates.look(part) for part in rows.split(_AT_A_TIME)])


def _values(function: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    return torch.cat([function(part) for part in points.split(_AT_A_TIME)]).double()
