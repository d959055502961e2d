"""The command line: led-fast train, evaluate, sample, score."""

import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from rich.console import Console
from tyro.conf import FlagCreatePairsOff, Positional, arg

from led_fast import __version__
from led_fast.data import DataSource, open_source, read_rows
from led_fast.errors import InputError
from led_fast.evaluation import evaluate, report_table
from led_fast.figures import density_figure, sample_figure
from led_fast.training import (
    PRESETS,
    DivergenceError,
    Interrupted,
    RunDirectory,
    TrainConfig,
    load,
    load_model,
    steps_in,
    train,
)
from led_fast.training.run import read_json, write_json

_SCORE_BATCH = 16_384

# None where an option was not given: a resumed run then takes what it was started with.
Preset = Annotated[str | None, arg(metavar="|".join(PRESETS), help_behavior_hint="(default: default)")]
Seed = Annotated[int | None, arg(metavar="INT", help_behavior_hint="(default: 0)")]
Steps = Annotated[int | None, arg(metavar="INT", help_behavior_hint="(default: the preset's)")]
Minutes = Annotated[float | None, arg(metavar="FLOAT", help_behavior_hint="")]
Output = Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="(default: CSV on standard output)")]
Run = Annotated[Positional[Path], arg(metavar="RUN")]


def train_command(
    data: Annotated[Positional[str], arg(metavar="ring|grid|FILE")],
    out: Annotated[Path, arg(metavar="DIR")],
    preset: Preset = None,
    seed: Seed = None,
    steps: Steps = None,
    minutes: Minutes = None,
    resume: bool = False,
) -> int:
    """Train a density and a sampler of it on points in the plane.

    led-fast train ring --out runs/ring

    led-fast train points.csv --minutes 5 --out runs/points

    led-fast train ring --out runs/ring --resume

    Ctrl-C, or a crash, loses at most the steps since the last checkpoint; --resume goes on bit for bit.

    Args:
        data: ring, grid, or a .npy or .csv file with two columns.
        out: a new folder for the run: config, checkpoint, metrics, model, report and picture.
        preset: networks and recipe. default: what works best here; inflated: a generator that is wider inside
            than the data; perpendicular: a critic with the penalty of Sec. 2.2, by direction or exact; paper: 256
            soft-ReLU features in 8 blocks, trained as printed.
        seed: of weights, data and noise.
        steps: how many steps.
        minutes: about how long to train, instead of steps; turned into steps once, before the first one.
        resume: go on with the run in --out; other options are then those of that run.
    """
    console = Console()
    if steps is not None and minutes is not None:
        raise InputError("--steps and --minutes: give one of the two")
    for option, value in (("--steps", steps), ("--minutes", minutes)):
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"{option}: want a positive number, got {value}")
    _check_seed(seed or 0)
    if preset is not None and preset not in PRESETS:
        raise InputError(f"--preset: want one of {', '.join(PRESETS)}, got {preset!r}")
    source = open_source(data)
    if resume:
        run, config = _reopen(out, source, preset=preset, seed=seed, steps=steps, minutes=minutes)
        if run.model.is_file():
            console.print(f"{out} is finished: {config.steps} steps. led-fast evaluate {out} reports on it.")
            return 0
    else:
        run = RunDirectory.create(out)
        name = preset or "default"
        recipe = PRESETS[name]
        config = TrainConfig(
            data, source.fingerprint, name, seed or 0, steps or recipe.steps, minutes=minutes, recipe=recipe
        )
        if minutes is not None:
            config = replace(config, steps=steps_in(minutes, config, source))
            console.print(f"{minutes:g} minutes are {config.steps} steps on this machine")
        write_json(run.config, {"version": __version__, **config.to_json()})
    train(run, config, source, console)
    _write_report(run, console)
    return 0


def evaluate_command(run: Run) -> int:
    """Measure a trained density, and write report.json and density.png.

    led-fast evaluate runs/ring

    Prints the quality of samples beside true ones, divergences from the truth, and how far the normaliser of
    the density can be believed.

    Args:
        run: folder of a finished run.
    """
    _write_report(RunDirectory.open(run), Console())
    return 0


def sample_command(
    run: Run,
    n: Annotated[int, arg(aliases=["-n"])] = 1000,
    refine: bool = False,
    seed: int = 0,
    out: Output = None,
) -> int:
    """Draw points from a trained density.

    led-fast sample runs/ring -n 10000 --refine --out points.npy

    Args:
        run: folder of a finished run.
        n: how many points.
        refine: resample the generator's draws by importance, so that they follow the density itself.
        seed: of the draws.
        out: a new .npy, .csv or .png file.
    """
    if n < 1:
        raise InputError(f"-n: want a positive number, got {n}")
    _check_seed(seed)
    _check_new(out, (".npy", ".csv", ".png"))
    model = load(run)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        points = model.sample(n, refine=refine)
    if out is not None and out.suffix == ".png":
        sample_figure(out, points, model.log_prob)
    else:
        _write_columns(points.numpy(), ["x1", "x2"], out)
    return 0


def score_command(
    run: Run, file: Annotated[Positional[Path], arg(metavar="FILE")], out: Output = None
) -> int:
    """Compute the log density, in nats, of every row of a file.

    led-fast score runs/ring points.csv --out scores.csv

    Args:
        run: folder of a finished run.
        file: a .npy or .csv file with two columns; every value must be finite.
        out: a new .csv or .npy file.
    """
    _check_new(out, (".csv", ".npy"))
    rows = read_rows(file)
    model = load(run)
    with torch.no_grad():
        scores = torch.cat([model.log_prob(chunk) for chunk in rows.split(_SCORE_BATCH)])
    if scores.isnan().any():
        row = int(scores.isnan().int().argmax())
        raise InputError(f"{file}: row {row + 1} is too far from the data to score: {rows[row].tolist()}")
    _write_columns(scores[:, None].double().numpy(), ["log_density"], out)
    return 0


COMMANDS: dict[str, Callable[..., int]] = {
    "train": train_command,
    "evaluate": evaluate_command,
    "sample": sample_command,
    "score": score_command,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Returns:
        The exit code: 0; 1 where training diverged; 2 for bad input; 128 + n where signal n stopped it.
    """
    try:
        return tyro.extras.subcommand_cli_from_dict(
            COMMANDS,
            prog="led-fast",
            description="Learn a normalised density, and a sampler of it, from points.",
            args=arguments,
            config=(FlagCreatePairsOff,),
        )
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return 0
    except (InputError, OSError) as error:
        code, message = 2, str(error)
    except DivergenceError as error:
        code, message = 1, str(error)
    except Interrupted as stop:
        code, message = 128 + stop.signal, f"{stop}; --resume goes on from there"
    except KeyboardInterrupt:
        code, message = 130, "interrupted"
    print(f"led-fast: {message}", file=sys.stderr)
    return code


def _reopen(out: Path, source: DataSource, **asked: object) -> tuple[RunDirectory, TrainConfig]:
    """Opens a run to go on with; InputError where an option that was given differs from the run's."""
    run = RunDirectory.open(out)
    content = read_json(run.config)
    content.pop("version", None)
    config = TrainConfig.from_json(content, str(run.config))
    for name, value in {"data": source.name, **asked}.items():
        if value is not None and value != getattr(config, name):
            raise InputError(f"--resume: {out} was started with {name} {getattr(config, name)}, not {value}")
    _check_content(run, config, source)
    return run, config


def _check_content(run: RunDirectory, config: TrainConfig, source: DataSource) -> None:
    if source.fingerprint != config.data_fingerprint:
        raise InputError(f"{config.data}: is no longer the data that {run.path} was trained on")


def _write_report(run: RunDirectory, console: Console) -> None:
    model, config, seconds = load_model(run)
    source = open_source(config.data)
    _check_content(run, config, source)
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


def _title(name: str, high_quality_percent: float | None) -> str:
    return (
        name if high_quality_percent is None else f"{name}: {high_quality_percent:.1f} % within 3σ of a mode"
    )


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 2**63:
        raise InputError(f"--seed: want a number from 0 to 2^63 - 1, got {seed}")


def _check_new(out: Path | None, suffixes: tuple[str, ...]) -> None:
    if out is None:
        return
    if out.suffix not in suffixes:
        raise InputError(f"--out {out}: want a file that ends in {', '.join(suffixes)}")
    if out.exists():
        raise InputError(f"--out {out}: exists already, and nothing is overwritten")


def _write_columns(columns: np.ndarray, names: list[str], out: Path | None) -> None:
    if out is not None and out.suffix == ".npy":
        np.save(out, columns)
    else:
        np.savetxt(
            out or sys.stdout, columns, fmt="%.15g", delimiter=",", header=",".join(names), comments=""
        )
