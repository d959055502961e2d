"""led-fast reproduce: the paper's tables and figures, from training to picture."""

import math
import os
from pathlib import Path
from typing import Annotated

from rich.markdown import Markdown
from tyro.conf import Positional, arg

from led_fast import terminal
from led_fast.errors import InputError
from led_fast.files import write_atomically
from led_fast.reproduce import EXPERIMENTS
from led_fast.reproduce.content import read_content, write_content
from led_fast.reproduce.experiment import Experiment
from led_fast.reproduce.harness import run_cells
from led_fast.reproduce.penalty import perpendicular_penalty
from led_fast.reproduce.table2 import table2
from led_fast.reproduce.tables.experiment import tables

_WANT_DATA = ("table2", "tables")
_NAMES = (*EXPERIMENTS, *_WANT_DATA)
_QUICK_NOTE = "quick run: not a result"


def reproduce_command(
    experiment: Annotated[Positional[str], arg(metavar="|".join(_NAMES))],
    out: Annotated[Path, arg(metavar="DIR")],
    seeds: Annotated[
        int | None, arg(metavar="INT", help_behavior_hint="(default: the experiment's, 5 for table1)")
    ] = None,
    data: Annotated[str | None, arg(metavar="DIR", help_behavior_hint="")] = None,
    budget: Annotated[float, arg(metavar="MINUTES")] = 100.0,
    quick: bool = False,
    jobs: Annotated[
        int | None, arg(metavar="INT", help_behavior_hint="(default: one a processor core)")
    ] = None,
) -> int:
    """Repeat one of the paper's experiments.

    led-fast reproduce table1 --out results

    led-fast reproduce figure7 --quick --out quick

    led-fast reproduce table2 --data MNIST --budget 150 --out results

    led-fast reproduce tables --data TABLES --out results

    Writes EXPERIMENT.json and .md, and a .png except for speed and tables. Ctrl-C loses little: the same command goes
    on with what is not finished.

    Args:
        experiment: a table or a figure; ablations: what each part of the recipe is worth; penalty: how much lower
            the density is off the data with the perpendicular penalty; speed: fast operators against plain PyTorch;
            tables: LED and its rivals on tables of any number of columns, in the same time.
        out: a folder for the results; experiments in the same folder share trained models.
        seeds: how many random seeds, from 0 on.
        data: where the images are, for table2 and, to have it on 32x32 images too, for penalty; for tables, a folder
            with letter.csv, shuttle.csv and satellite.csv, each with a column "class" (of R's package mlbench).
        budget: for table2, minutes of training, of all methods together.
        quick: a few steps, in a minute or two, to see that everything works.
        jobs: how many trainings at a time, on one thread each.
    """
    console = terminal.console()
    if experiment not in _NAMES:
        raise InputError(f"experiment: want one of {', '.join(_NAMES)}, got {experiment!r}")
    if experiment in _WANT_DATA and data is None:
        raise InputError(f"--data: want DIR for {experiment}, got none")
    if data is not None and experiment not in (*_WANT_DATA, "penalty"):
        raise InputError(f"--data: is for table2, tables and penalty, got {experiment}")
    if not 0 < budget < math.inf:
        raise InputError(f"--budget: want a positive number, got {budget}")
    for option, value in (("--seeds", seeds), ("--jobs", jobs)):
        if value is not None and value < 1:
            raise InputError(f"{option}: want a positive number, got {value}")
    chosen = EXPERIMENTS[experiment] if data is None else _on_data(experiment, data, budget)
    seeds = seeds or (min(chosen.seeds, 1) if quick else chosen.seeds)
    command = f"led-fast reproduce {experiment}"
    command += "" if data is None else f" --data {Path(data).name}"
    command += f" --budget {budget:g}" if experiment == "table2" else ""
    command += (f" --seeds {seeds}" if chosen.seeds else "") + (" --quick" if quick else "")
    jobs = 1 if chosen.alone else jobs or os.cpu_count() or 1
    out.mkdir(parents=True, exist_ok=True)
    results = run_cells(chosen.cells(seeds, quick), out, command, jobs, console)

    files = {suffix: out / f"{experiment}.{suffix}" for suffix in ("json", "md", "png")}
    write_content(files["json"], experiment, command, quick, results)
    note = _QUICK_NOTE if quick else ""
    heading = f"# {chosen.title}\n\n" + (f"**{note}**\n\n" if note else "")
    text = heading + chosen.markdown(read_content(files["json"]))
    write_atomically(files["md"], text.encode())
    if chosen.draw is not None:
        chosen.draw(files["png"], results, note)
    console.print(Markdown(text))
    written = f"{files['json']}, .md and .png" if chosen.draw else f"{files['json']} and .md"
    terminal.say(console, f"{written} hold the result")
    return 0


def _on_data(experiment: str, data: str, budget: float) -> Experiment:
    if experiment == "penalty":
        return perpendicular_penalty(data)
    return tables(data) if experiment == "tables" else table2(data, budget)
