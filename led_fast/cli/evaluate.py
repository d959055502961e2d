"""led-fast evaluate: how good a run is, and how far its numbers can be believed."""

from rich.console import Console

from led_fast import __version__
from led_fast.cli.options import Run
from led_fast.data import DataSource, open_source
from led_fast.errors import InputError
from led_fast.evaluation import evaluate, report_table
from led_fast.figures import density_figure
from led_fast.training import RunDirectory, TrainConfig, load_model
from led_fast.training.run import write_json


def evaluate_command(run: Run) -> int:
    """Measure a trained density, and write report.json and density.png.

    led-fast evaluate runs/ring

    Prints the quality of samples beside true ones, divergences from the truth, and how far the normaliser of
    the density can be believed.

    Args:
        run: folder of a finished run.
    """
    write_report(RunDirectory.open(run), Console())
    return 0


def write_report(run: RunDirectory, console: Console) -> None:
    """Evaluates a finished run, writes its report and picture, and prints the table."""
    model, config, seconds = load_model(run)
    source = open_source(config.data)
    check_content(run, config, source)
    evaluation = evaluate(model, source, seed=config.seed)
    head = {"version": __version__, "data": config.data, "preset": config.preset, "seed": config.seed}
    timing = {"steps": config.steps, "seconds": seconds}
    report = {**head, **timing, **evaluation.report, "config": config.to_json()}
    write_json(run.report, report)
    draws = {
        _title("generator", report["high_quality_percent"]): evaluation.samples,
        _title("refined", report["high_quality_percent_refined"]): evaluation.refined,
    }
    density_figure(run.figure, model.log_prob, source.mixture, evaluation.data, draws)
    console.print(report_table(report))
    console.print(f"trained in {seconds:.0f} s; {run.report} and {run.figure} hold the details", style="dim")


def check_content(run: RunDirectory, config: TrainConfig, source: DataSource) -> None:
    """InputError where the data are no longer those that the run was trained on."""
    if source.fingerprint != config.data_fingerprint:
        raise InputError(f"{config.data}: is no longer the data that {run.path} was trained on")


def _title(name: str, high_quality_percent: float | None) -> str:
    return (
        name if high_quality_percent is None else f"{name}: {high_quality_percent:.1f} % within 3σ of a mode"
    )
