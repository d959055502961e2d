"""led-fast train: from data to a density in a folder."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from rich.console import Console
from tyro.conf import Positional, arg

from led_fast import __version__
from led_fast.cli.evaluate import check_content, write_report
from led_fast.cli.options import check_seed
from led_fast.data import DataSource, open_source
from led_fast.errors import InputError
from led_fast.training import PRESETS, Ops, RunDirectory, TrainConfig, join_world, steps_in, train
from led_fast.training.run import read_json, write_json

# None where an option was not given: a resumed run then takes what it was started with.
Preset = Annotated[str | None, arg(metavar="|".join(PRESETS), help_behavior_hint="(default: default)")]
Seed = Annotated[int | None, arg(metavar="INT", help_behavior_hint="(default: 0)")]
Steps = Annotated[int | None, arg(metavar="INT", help_behavior_hint="(default: the preset's)")]
Minutes = Annotated[float | None, arg(metavar="FLOAT", help_behavior_hint="")]
Operators = Annotated[Ops | None, arg(metavar="fast|reference", help_behavior_hint="(default: fast)")]


def train_command(
    data: Annotated[Positional[str], arg(metavar="ring|grid|FILE")],
    out: Annotated[Path, arg(metavar="DIR")],
    preset: Preset = None,
    seed: Seed = None,
    steps: Steps = None,
    minutes: Minutes = None,
    ops: Operators = None,
    resume: bool = False,
) -> int:
    """Train a density and a sampler of it on points in the plane.

    led-fast train ring --out runs/ring

    led-fast train points.csv --minutes 5 --out runs/points

    led-fast train ring --out runs/ring --resume

    torchrun --nproc-per-node 2 -m led_fast train ring --out runs/ring

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
        ops: fast: the kernels; reference: the same operators in plain PyTorch, to compare speed and results with.
        resume: go on with the run in --out; other options are then those of that run.
    """
    if steps is not None and minutes is not None:
        raise InputError("--steps and --minutes: give one of the two")
    for option, value in (("--steps", steps), ("--minutes", minutes)):
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"{option}: want a positive number, got {value}")
    check_seed(seed or 0)
    if preset is not None and preset not in PRESETS:
        raise InputError(f"--preset: want one of {', '.join(PRESETS)}, got {preset!r}")
    source = open_source(data)
    with join_world() as world:
        first = world.rank == 0
        console = Console(quiet=not first)
        if resume:
            asked = {"preset": preset, "seed": seed, "steps": steps, "minutes": minutes, "ops": ops}
            run, config = _reopen(out, source, **asked)
            if run.model.is_file():
                console.print(
                    f"{out} is finished: {config.steps} steps. led-fast evaluate {out} reports on it."
                )
                return 0
        else:
            run = RunDirectory.create(out) if first else RunDirectory(out)
            config = TrainConfig.from_preset(
                data, source.fingerprint, preset or "default", seed or 0, steps, minutes, ops or "fast"
            )
            if minutes is not None:
                config = replace(config, steps=steps_in(minutes, config, source, world))
                console.print(f"{minutes:g} minutes are {config.steps} steps on this machine")
            if first:
                write_json(run.config, {"version": __version__, **config.to_json()})
        train(run, config, source, console, world=world)
    if first:
        write_report(run, console)
    return 0


def _reopen(out: Path, source: DataSource, **asked: object) -> tuple[RunDirectory, TrainConfig]:
    """Opens a run to go on with; InputError where an option that was given differs from the run's."""
    run = RunDirectory.open(out)
    content = read_json(run.config)
    content.pop("version", None)
    config = TrainConfig.from_json(content, str(run.config))
    for name, value in {"data": source.name, **asked}.items():
        if value is not None and value != getattr(config, name):
            raise InputError(f"--resume: {out} was started with {name} {getattr(config, name)}, not {value}")
    check_content(run, config, source)
    return run, config
