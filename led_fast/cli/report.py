"""Reports of finished runs: a JSON file, a picture, and a table on the console."""

from rich.console import Console

from led_fast.files import write_json
from led_fast.kinds import find_kind
from led_fast.kinds.kind import EvaluateOptions
from led_fast.provenance import provenance
from led_fast.terminal import say, show
from led_fast.training import RunDirectory, Source, TrainedModel


def write_report(
    run: RunDirectory, trained: TrainedModel, source: Source, options: EvaluateOptions, console: Console
) -> bool:
    """Evaluates a run: `report.json`, `density.png`, a table; False where there is nothing to report on."""
    config = trained.config
    report = find_kind(config.kind).evaluate(trained, source, options, console)
    if report is None:
        return False
    head = {
        "evaluated_with": provenance(),
        "kind": config.kind,
        "data": config.data,
        "preset": config.preset,
        "seed": config.seed,
        "steps": config.steps,
        "seconds": trained.seconds,
    }
    for name, draw in report.pictures.items():
        draw(run.path / name)
    write_json(run.report, {**head, **report.values, "config": config.to_json()})
    for table in report.tables:
        show(console, table)
    files = f"{', '.join(report.pictures)} and {run.report.name} in {run.path} hold the details"
    say(console, f"trained in {trained.seconds:.0f} s; {files}")
    return True
