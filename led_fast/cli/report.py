"""Reports of finished runs: a JSON file, a picture, and a table on the console."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from led_fast.cli.doubt import doubt
from led_fast.data import DataSource
from led_fast.data.images import ImageSource
from led_fast.density import Verdict
from led_fast.evaluation import (
    FeatureNetwork,
    evaluate,
    evaluate_image_samples,
    evaluate_images,
    image_report_table,
    report_table,
)
from led_fast.figures import density_figure, grid_figure, sorted_figure
from led_fast.provenance import provenance
from led_fast.training import RunDirectory, Source, TrainedModel, image_device, load_model
from led_fast.training.run import write_json

_FIRST_SAMPLES = 5000  # of images, in the report at the end of training
_SHOWN = 100


def write_report(run: RunDirectory, source: Source, console: Console) -> None:
    """Evaluates the run that has just finished."""
    trained = load_model(run)
    if isinstance(source, ImageSource):
        write_image_report(run, trained, source, console, samples=_FIRST_SAMPLES)
    elif trained.config.recipe.objective == "gan":
        console.print(f"a plain GAN has no density to report on; led-fast sample {run.path} draws from it")
    else:
        write_plane_report(run, trained, source, console)


def write_plane_report(
    run: RunDirectory, trained: TrainedModel, source: DataSource, console: Console
) -> None:
    """Evaluates a density on the plane: `report.json`, `density.png`, a table."""
    evaluation = evaluate(trained.model, source, seed=trained.config.seed)
    report = evaluation.report
    draws = {
        _title("generator", report["high_quality_percent"]): evaluation.samples,
        _title("refined", report["high_quality_percent_refined"]): evaluation.refined,
    }
    density_figure(run.figure, trained.model.log_prob, source.mixture, evaluation.data, draws)
    _write(run, trained, report, report_table(report), console)


def write_image_report(
    run: RunDirectory,
    trained: TrainedModel,
    source: ImageSource,
    console: Console,
    features: FeatureNetwork | None = None,
    outliers: Mapping[str, ImageSource] | None = None,
    samples: int = 10_000,
) -> None:
    """Evaluates a density of images: `report.json`, `density.png` with samples in its order, a table.

    Of a plain GAN, which has no density, its samples alone.
    """
    model, config = trained.model.to(image_device()), trained.config
    if config.recipe.objective == "gan":
        evaluation = evaluate_image_samples(model, source, config.seed, features, samples)
        grid_figure(run.figure, evaluation.samples[:_SHOWN])
    else:
        with console.status("samples, scores, and log α by annealing: some minutes on a CPU"):
            evaluation = evaluate_images(model, source, config.seed, features, outliers, samples)
        note = doubt(Verdict.from_json(evaluation.report["log_normalizer"]))
        sorted_figure(run.figure, evaluation.samples[:_SHOWN], evaluation.log_prob[:_SHOWN], note=note)
    _write(run, trained, evaluation.report, image_report_table(evaluation.report), console)


def _write(
    run: RunDirectory, trained: TrainedModel, report: dict[str, Any], table: Table, console: Console
) -> None:
    config = trained.config
    head = {"evaluated_with": provenance(), "data": config.data, "preset": config.preset, "seed": config.seed}
    timing = {"steps": config.steps, "seconds": trained.seconds}
    write_json(run.report, {**head, **timing, **report, "config": config.to_json()})
    console.print(table)
    files = f"{run.report} and {run.figure} hold the details"
    console.print(f"trained in {trained.seconds:.0f} s; {files}", style="dim")


def _title(name: str, high_quality_percent: float | None) -> str:
    return (
        name if high_quality_percent is None else f"{name}: {high_quality_percent:.1f} % within 3σ of a mode"
    )
