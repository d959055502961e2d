"""Points as a kind of data."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from led_fast.data import DataSource, open_source
from led_fast.data.source import is_distribution
from led_fast.data.tables import SUFFIXES, column_names, is_planar, read_new_rows, read_table
from led_fast.density import DensityModel
from led_fast.errors import InputError
from led_fast.evaluation import evaluate, report_table
from led_fast.figures import density_figure, sample_figure
from led_fast.kinds.kind import EvaluateOptions, Preset, Report, Rows
from led_fast.kinds.points.settings import PRESETS
from led_fast.kinds.points.task import DEVICE, PointsTask, points_networks
from led_fast.kinds.write import write_rows
from led_fast.models import in_data_coordinates
from led_fast.random_state import seeded
from led_fast.terminal import say
from led_fast.training.config import Reading, TrainConfig
from led_fast.training.model import TrainedModel
from led_fast.training.world import World

_SCORE_BATCH = 16_384
_PLANE = 2  # columns


class PointsKind:
    """Points in the plane; see `led_fast.kinds.kind.Kind`."""

    name = "points"
    about = "points in the plane"
    presets = tuple(PRESETS)
    model_type = type(PRESETS["default"].model)
    can = frozenset({"--drop-missing", "--refine"})
    gan: Mapping[str, Any] | None = {"recipe.objective": "gan"}
    parallel = True
    default_samples = 1000
    sample_suffixes = (".npy", ".csv", ".png")
    score_suffixes = (".csv", ".npy")

    def claims(self, place: str, reading: Reading) -> bool:
        """The ring, the grid, and files of two continuous columns without labels."""
        if is_distribution(place):
            return True
        if reading.ignore or not place.lower().endswith(SUFFIXES) or len(column_names(place)) != _PLANE:
            return False  # without reading what another kind will read
        return is_planar(read_table(place, drop_missing=reading.drop_missing))

    def open(self, place: str, preset: str | None, reading: Reading) -> DataSource:
        """Opens points; see `open_source`."""
        return open_source(place, reading.drop_missing)

    def remarks(self, source: DataSource) -> list[str]:
        """What was found in the file."""
        return list(source.notes)

    def configure(self, source: DataSource, preset: str | None) -> tuple[str, Preset]:
        """A preset by name, `default` without one."""
        name = preset or "default"
        if name not in PRESETS:
            raise InputError(f"--preset: want one of {', '.join(PRESETS)}, got {name!r}")
        model, recipe = PRESETS[name]
        return name, Preset(replace(model, columns=source.columns), recipe)

    def device(self) -> torch.device:
        """The CPU."""
        return DEVICE

    def float32_only(self, model: Any) -> str:
        """None are."""
        return ""

    def task(self, config: TrainConfig, source: DataSource, world: World) -> PointsTask:
        """Training in standardised coordinates."""
        return PointsTask(config, source)

    def untrained(self, config: TrainConfig) -> DensityModel:
        """Networks around which a finished model's state puts the data's shift and scale."""
        unit = torch.ones(config.model.dim)
        return in_data_coordinates(*points_networks(config.model), 0 * unit, unit)

    def evaluate(
        self, trained: TrainedModel, source: DataSource, options: EvaluateOptions, console: Console
    ) -> Report | None:
        """Quality, divergences, log α, and the density beside truth and samples."""
        if not trained.config.recipe.has_density:
            return None
        evaluation = evaluate(trained.model, source, seed=trained.config.seed)
        report = evaluation.report
        draws = {
            _title("generator", report["high_quality_percent"]): evaluation.samples,
            _title("refined", report["high_quality_percent_refined"]): evaluation.refined,
        }

        def draw(path: Path) -> None:
            density_figure(path, trained.model.log_prob, source.mixture, evaluation.data, draws)

        return Report(report, [report_table(report)], {"density.png": draw})

    def score(self, trained: TrainedModel, place: Path, console: Console) -> Rows:
        """The log density of every row, in nats."""
        model = trained.config.model
        table = read_new_rows(place, model.columns or None)
        for note in table.notes if model.columns else ():
            say(console, note)
        if len(table.names) != model.dim:
            raise InputError(f"{place}: want {model.dim} columns, got {len(table.names)}")
        rows = torch.from_numpy(table.mapped())
        with torch.no_grad():
            scores = torch.cat([trained.model.log_prob(chunk) for chunk in rows.split(_SCORE_BATCH)])
        if scores.isnan().any():
            row = int(scores.isnan().int().argmax())
            raise InputError(
                f"{place}: row {row + 1} is too far from the data to score: {rows[row].tolist()}"
            )
        return Rows({"log_density": scores.double().numpy()})

    def write_samples(
        self, trained: TrainedModel, n: int, refine: bool, seed: int, out: Path | None, note: str
    ) -> None:
        """Columns of numbers, or a picture that shows log densities."""
        pictured = out is not None and out.suffix == ".png"
        if pictured and not trained.config.recipe.has_density:
            raise InputError(f"--out {out}: a plain GAN has no density to colour its samples by")
        with seeded(seed, DEVICE), torch.no_grad():
            drawn = trained.model.sample(n, refine=refine)
        if out is not None and pictured:
            sample_figure(out, drawn, trained.model.log_prob)
        else:
            names = trained.config.model.columns or [f"x{i + 1}" for i in range(drawn.shape[1])]
            write_rows(Rows(dict(zip(names, drawn.T.numpy(), strict=True))), out)


def _title(name: str, high_quality_percent: float | None) -> str:
    return (
        name if high_quality_percent is None else f"{name}: {high_quality_percent:.1f} % within 3σ of a mode"
    )


KIND = PointsKind()
