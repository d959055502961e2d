"""Presets of tables, by the number of their rows."""

from dataclasses import dataclass, field
from typing import Any

from led_fast.data.tables import Column, Constant, TableSource
from led_fast.kinds.kind import Preset
from led_fast.models.tables import TableCriticConfig, TableGeneratorConfig
from led_fast.ranges import Count
from led_fast.training.settings import (
    Batches,
    Calibration,
    GeneratorLoss,
    Optimizer,
    Recipe,
    Selection,
    changed,
)

_MANY_ROWS = 10_000  # for training; with fewer, a large flow learns them by heart
_FLOW_SHARE = 0.3  # of the steps, which take three times as long as the tilt's
_HELD_ESS = 0.13  # the tilt that is taken must have .1, by fewer samples and in the mean of steps


@dataclass(frozen=True)
class Pool:
    """What the tilt learns from: draws of the finished flow, and dequantised rows, both made once.

    A step of the tilt then never touches the flow. Small pools are learned by heart.

    Attributes:
        draws: of the flow.
        rows: of the data; the more, the less a table of few rows repeats its noise.
        validation_draws: of the flow, for the tilt's score.
        validation_rows: at most, for either score.
    """

    draws: Count = 300_000
    rows: Count = 150_000
    validation_draws: Count = 20_000
    validation_rows: Count = 8000


@dataclass(frozen=True)
class TablesModel:
    """Networks for a table, and what is known of its columns.

    Attributes:
        columns: what is modelled.
        constants: what is not, because it never changes.
        named: whether the names are the table's own.
        cells: the most cells of a column's histogram.
        generator: its networks.
        critic: its network.
        pool: of the tilt.
    """

    columns: tuple[Column, ...]
    constants: tuple[Constant, ...]
    named: bool
    cells: Count
    generator: TableGeneratorConfig = field(default_factory=TableGeneratorConfig)
    critic: TableCriticConfig = field(default_factory=TableCriticConfig)
    pool: Pool = Pool()


_RECIPE = Recipe(
    steps=6000,
    warm_up=_FLOW_SHARE,
    ema=0.99,
    batches=Batches(data=512, integrals=1, integral_samples=1, generated=512, generator_steps=1),
    optimizer=Optimizer(
        generator_learning_rate=5e-3,
        betas=(0.9, 0.999),
        weight_decay=1e-3,
        rise=50,
        decay_from=0.0,
        decay_until=_FLOW_SHARE,
        decay_to=0.0,
        gradient_clip=5.0,
    ),
    generator_loss=GeneratorLoss(likelihood_weight=1.0, forward_weight=0.0),
    calibration=Calibration(begin=_FLOW_SHARE, samples=1024, learning_rate=5e-3, ess=0.0, held_ess=_HELD_ESS),
    selection=Selection(checks=25),
)


def preset_of(source: TableSource, cells: int) -> Preset:
    """Networks and recipe for a table, its marginal's number of cells given."""
    small = source.size("train") < _MANY_ROWS
    sizes: dict[str, Any] = {"blocks": 4, "dropout": 0.3} if small else {"blocks": 8}
    generator = TableGeneratorConfig(width=64, **sizes)
    recipe = changed(_RECIPE, {"optimizer.weight_decay": 0.1}) if small else _RECIPE
    return Preset(TablesModel(source.columns, source.constants, source.named, cells, generator), recipe)
