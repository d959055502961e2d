"""Tables as a kind of data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from led_fast.data.tables import SUFFIXES, TableSource, read_new_rows, read_table, write_table
from led_fast.density import DensityModel
from led_fast.errors import InputError
from led_fast.evaluation.table_score import TableScores, score_rows
from led_fast.evaluation.table_summary import table_summary
from led_fast.evaluation.tables import evaluate_table, labelled_rows
from led_fast.figures.marginals import marginals_figure
from led_fast.figures.pairs import pairs_figure
from led_fast.flows import Marginal
from led_fast.kinds.kind import EvaluateOptions, Preset, Report, Rows
from led_fast.kinds.tables.settings import TablesModel, preset_of
from led_fast.kinds.tables.task import DEVICE, TablesTask, coordinates_of
from led_fast.models.tables import CappedTilt, TiltedTable, table_density, table_generator
from led_fast.random_state import seeded
from led_fast.terminal import say
from led_fast.training.config import Reading, TrainConfig
from led_fast.training.model import TrainedModel
from led_fast.training.world import World

_PRESET = "table"
_NAMED = 3  # columns that made a row odd


class TablesKind:
    """Tables; see `led_fast.kinds.kind.Kind`."""

    name = "tables"
    about = "tables"
    presets = (_PRESET,)
    model_type = TablesModel
    can = frozenset({"--ignore", "--drop-missing", "--anomaly", "--refine"})
    gan: Mapping[str, Any] | None = None
    parallel = False
    default_samples = 1000
    sample_suffixes = (".csv", ".tsv", ".parquet", ".npy")
    score_suffixes = (".csv",)

    def claims(self, place: str, reading: Reading) -> bool:
        """Files of tables."""
        return place.lower().endswith(SUFFIXES)

    def open(self, place: str, preset: str | None, reading: Reading) -> TableSource:
        """Opens a table; see `read_table`."""
        return TableSource(place, read_table(place, reading.ignore, reading.drop_missing))

    def remarks(self, source: TableSource) -> list[str]:
        """What was found in the columns."""
        discrete = [column.name for column in source.columns if column.discrete]
        said = f"{len(source.columns)} columns, {source.size('train')} rows to learn from"
        if discrete:
            said += f"; on a lattice, so dequantised: {', '.join(discrete)}"
        return [said, *source.notes]

    def configure(self, source: TableSource, preset: str | None) -> tuple[str, Preset]:
        """The one preset, of a size that suits the number of rows."""
        if preset not in (None, _PRESET):
            raise InputError(f"--preset: want {_PRESET} for a table, got {preset!r}")
        return _PRESET, preset_of(source, source.marginal.cells)

    def device(self) -> torch.device:
        """The CPU."""
        return DEVICE

    def float32_only(self, model: Any) -> str:
        """The tilt's few nats are what is to be learned."""
        return "the critic of a table"

    def task(self, config: TrainConfig, source: TableSource, world: World) -> TablesTask:
        """Training in normal columns."""
        return TablesTask(config, source)

    def untrained(self, config: TrainConfig) -> DensityModel:
        """Networks around which a finished model's state puts the table's coordinates."""
        model: TablesModel = config.model
        dim = len(model.columns)
        with DEVICE:
            unit = torch.ones(dim, dtype=torch.float64)
            coordinates = coordinates_of(model, Marginal(dim, model.cells), 0 * unit, unit)
            tilt = CappedTilt(coordinates.features, model.critic)
            mean = torch.zeros(coordinates.features, dtype=torch.float32)
            return table_density(tilt, table_generator(model.generator, dim), coordinates, mean, mean + 1)

    def evaluate(
        self, trained: TrainedModel, source: TableSource, options: EvaluateOptions, console: Console
    ) -> Report:
        """Likelihood of flow and tilt, log α, anomalies, and samples beside test rows."""
        model, config = trained.model, trained.config
        anomaly = None if options.anomaly is None else labelled_rows(source, *_split(options.anomaly))
        found = evaluate_table(model, source, config.seed, _tilt(model).bound, anomaly)

        shown = (found.data, found.samples, source.columns)
        pictures = {
            "density.png": lambda path: pairs_figure(path, *shown),
            "columns.png": lambda path: marginals_figure(path, *shown),
        }
        return Report(found.report, table_summary(found.report), pictures)

    def score(self, trained: TrainedModel, place: Path, console: Console) -> Rows:
        """Log density of every row, its rank, and the columns that make the strangest rows odd."""
        model: TablesModel = trained.config.model
        table = read_new_rows(place, [column.name for column in model.columns])
        for note in table.notes:
            say(console, note)
        scores = score_rows(trained.model, torch.from_numpy(table.mapped()), model.columns)
        return Rows(
            {
                "log_density": scores.log_density.numpy(),
                "rank": scores.rank.numpy(),
                "odd_columns": _odd_columns(scores),
            },
            {"log_density": ".6g"},
        )

    def write_samples(
        self, trained: TrainedModel, n: int, refine: bool, seed: int, out: Path | None, note: str
    ) -> None:
        """Rows with the table's own columns and types."""
        model: TablesModel = trained.config.model
        with seeded(seed, DEVICE), torch.no_grad():
            drawn = trained.model.sample(n, refine=refine)
        write_table(out, model.columns, drawn.double().numpy(), model.constants)


def _split(anomaly: str) -> tuple[str, str]:
    column, equals, value = anomaly.partition("=")
    if not (column and equals):
        raise InputError(f"--anomaly: want COLUMN=VALUE, got {anomaly!r}")
    return column, value


def _tilt(model: DensityModel) -> CappedTilt:
    assert isinstance(model.critic, TiltedTable)
    return model.critic.tilt


def _odd_columns(scores: TableScores) -> list[str]:
    """`name (value)` of a few columns for each row that has an explanation."""
    said = [""] * len(scores.rank)
    for odd in scores.odd:
        said[odd.row] = "; ".join(f"{column.name} ({column.value:g})" for column in odd.columns[:_NAMED])
    return said


KIND = TablesKind()
