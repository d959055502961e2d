"""led-fast train: from data to a density in a folder."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, Literal

from rich.console import Console
from tyro.conf import Positional, arg

from led_fast import __version__, terminal
from led_fast.cli.data import open_target, remark, reopen
from led_fast.cli.doubt import warn
from led_fast.cli.options import Several, check_seed
from led_fast.cli.report import write_report
from led_fast.errors import InputError, first_line
from led_fast.files import read_json, write_json
from led_fast.kinds import all_kinds, find_kind
from led_fast.kinds.kind import EvaluateOptions, Kind
from led_fast.terminal import say
from led_fast.training import (
    Compile,
    CudaGraph,
    ObjectiveName,
    Ops,
    Pace,
    Precision,
    Reading,
    RunDirectory,
    Source,
    TrainConfig,
    World,
    automatic_precision,
    check_precision,
    join_world,
    load_model,
    measure_pace,
    name_device,
    read_model,
    train,
    why_not_compile,
)

# None where an option was not given: a resumed run then takes what it was started with.
Target = Annotated[Positional[str], arg(metavar="ring|grid|FILE|DIR")]
Place = Annotated[str | None, arg(metavar="DIR|FILE", help_behavior_hint="")]
Preset = Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: what suits the data)")]
Objective = Annotated[ObjectiveName | None, arg(metavar="led|gan", help_behavior_hint="(default: led)")]
Samples = Annotated[int | None, arg(metavar="S", help_behavior_hint="(default: the preset's)")]
Seed = Annotated[int | None, arg(metavar="INT", help_behavior_hint="(default: 0)")]
Steps = Annotated[int | None, arg(metavar="INT", help_behavior_hint="(default: the preset's)")]
Minutes = Annotated[float | None, arg(metavar="FLOAT", help_behavior_hint="")]
PrecisionChoice = Annotated[
    Precision | Literal["auto"] | None,
    arg(metavar="float32|bf16|auto", help_behavior_hint="(default: float32)"),
]
CompileChoice = Annotated[
    Compile | Literal["auto"] | None, arg(metavar="auto|on|off", help_behavior_hint="(default: off)")
]
Wait = Annotated[float, arg(metavar="MINUTES")]
Columns = Annotated[Several[str], arg(metavar="COLUMN", help_behavior_hint="")]
Operators = Annotated[Ops | None, arg(metavar="fast|reference", help_behavior_hint="(default: fast)")]
Graphs = Annotated[CudaGraph | None, arg(metavar="auto|off", help_behavior_hint="(default: auto)")]


_WORTH_A_TRIAL = 120.0  # seconds of a run; compiling takes some tens


def train_command(
    target: Target,
    out: Annotated[Path, arg(metavar="DIR")],
    data: Place = None,
    preset: Preset = None,
    objective: Objective = None,
    integral_samples: Samples = None,
    seed: Seed = None,
    steps: Steps = None,
    minutes: Minutes = None,
    ops: Operators = None,
    cuda_graph: Graphs = None,
    precision: PrecisionChoice = None,
    compile: CompileChoice = None,
    ignore: Columns = (),
    drop_missing: bool = False,
    strict: bool = False,
    wait: Wait = 10.0,
    resume: bool = False,
) -> int:
    """Train a density, and a sampler of it, on points in the plane, a table, or images.

    led-fast train ring --out runs/ring

    led-fast train points.csv --minutes 5 --out runs/points

    led-fast train table.csv --ignore label --minutes 5 --out runs/table

    led-fast train MNIST --preset mnist32 --minutes 45 --out runs/mnist

    led-fast train MNIST --out runs/mnist --resume

    torchrun --nproc-per-node 2 -m led_fast train MNIST --out runs/mnist

    On a table, each column's distribution is fitted first; then a flow of all columns learns by maximum likelihood,
    and last the critic tilts the flow's density to what it has missed, as far as log α can still be estimated. Columns
    that never change are left out; columns on a lattice (counts, ratings, few decimals) get noise of one step, so that
    they have a density.

    On images, unless the preset is paper_… or the objective gan, the generator first learns alone, by maximum
    likelihood of the data, for half of the steps. Then the critic tilts the generator's density, and
    the generator follows, until 90 %. Last, the generator rests and the critic tilts it, as far as log α can still be
    estimated. The paper has no such stages.

    Ctrl-C, or a crash, loses at most the steps since the last checkpoint; --resume goes on, on CPUs bit for bit.

    Args:
        target: points: ring, grid, or a file of two continuous columns. A table: any other .csv, .tsv, .parquet or .npy
            file, of 100 rows at least; separator, header, quotes, decimal comma and encoding are found. Images, 100 at
            least: a folder of MNIST's or CIFAR-10's files, or of pictures; or uint8 arrays in a .npy file (with
            --preset), or in a .npz file as images or x_train, with labels or y_train if there are any.
        out: a new folder for the run: config, checkpoint, metrics, model, report and pictures.
        data: where the data of a resumed run are now.
        preset: networks and recipe. For points, default: what works best here; inflated: a generator that is
            wider inside than the data; perpendicular: a critic with the penalty of Sec. 2.2, by direction or
            exact; paper: the paper's generator (normal latents, noise, {linear, soft-ReLU} blocks, Eq. 8) with
            learned bends, from a start where log q is nearly right; paper_printed: 256 soft-ReLU features in 8 blocks,
            trained as printed. For images, mnist32: gray 32x32
            ones; color32 and color64: RGB; paper_…: draw twice the size and slice it down, as the paper does; tiny:
            8x8, for tests. A table has one preset, whose size goes by the number of rows.
        objective: led: the density; gan: the same networks as a plain GAN, to compare samples with. On images it has
            rates and a gradient penalty of its own.
        integral_samples: S of Eq. 3, samples of one estimate of the integral; 1 is the Wasserstein critic of Eq. 4,
            and makes poor images.
        seed: of weights, data and noise.
        steps: how many steps.
        minutes: about how long to train, instead of steps; turned into steps once, before the first one.
        ops: fast: the kernels; reference: the same operators in plain PyTorch, to compare speed and results with.
        cuda_graph: a step on images is thousands of kernels, which a GPU finishes sooner than a CPU launches them.
            auto: after a few steps of each kind the GPU records one, and then replays it whole, with the same random
            numbers; on CPUs, and among several processes, nothing is recorded. off: never, to compare speed or to look
            for an error.
        precision: in which the critic's networks are trained. bf16: bfloat16, all but their last layers; log q, log α,
            losses, and the model that comes of it, stay in float32. auto: bf16 for images on a GPU that has it
            (compute capability 8.0) where the critic has no penalty, else float32; a resumed run keeps its own.
        compile: whether torch.compile compiles the networks that are trained, but not our operators. auto: where a
            trial of both says that a step takes less; without a compiler, and in runs of less than two minutes, off.
            On CPUs it seldom pays. It changes results by rounding, so a resumed run keeps its own.
        ignore: columns of a table that are not to be modelled, such as labels and text: --ignore one --ignore two.
        drop_missing: pass over rows of a table in which a value is missing, instead of refusing them.
        strict: stop at a picture that cannot be used, instead of skipping it.
        wait: minutes to wait for the other processes of a run that torchrun, or WORLD_SIZE, shares out.
        resume: go on with the run in --out. Other options must be those of the run, or left out; but --steps may be
            more, also where the run is finished, and --cuda-graph may change.
    """
    if steps is not None and minutes is not None:
        raise InputError("--steps and --minutes: give one of the two")
    numbers = {
        "--steps": steps,
        "--minutes": minutes,
        "--integral-samples": integral_samples,
        "--wait": wait,
    }
    for option, value in numbers.items():
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"{option}: want a positive number, got {value}")
    check_seed(seed or 0)
    ignored = tuple(sorted(set(chain.from_iterable(ignore))))
    place, preset = _present_form(target, preset, data, resume)
    if resume:
        asked = [
            ("preset", preset),
            ("seed", seed),
            ("minutes", minutes),
            ("ops", ops),
            ("precision", None if precision == "auto" else precision),
            ("compile", None if compile == "auto" else compile),
            ("recipe.objective", objective),
            ("recipe.batches.integral_samples", integral_samples),
            ("reading.ignore", ignored or None),
            ("reading.drop_missing", drop_missing or None),
        ]
        config = _reopen(out, asked)
        config = replace(config, cuda_graph=cuda_graph or config.cuda_graph)  # which changes no result
        if steps is not None and steps != config.steps:
            if steps < config.steps:
                raise InputError(f"--steps: {out} has {config.steps}, which may become more, not {steps}")
            config = replace(config, steps=steps, minutes=None)
        source = reopen(config, strict, place)
    else:
        reading = Reading(strict, ignored, drop_missing)
        source = open_target(place or target, preset, reading)
        config = TrainConfig.of(source, preset, seed or 0, steps, minutes, reading=reading)
        config = replace(config, ops=ops or "fast", cuda_graph=cuda_graph or "auto")
        config = _changed(config, objective, integral_samples)
    kind = find_kind(config.kind)
    with join_world(kind.device(), wait) as world:
        console = terminal.console(quiet=world.rank > 0)
        if world.size > 1 and not kind.parallel:
            raise InputError(
                f"{kind.about} are trained by one process, got {world.size}: start led-fast without torchrun"
            )
        remark(kind, source, console)
        if not resume:
            if preset is None and len(kind.presets) > 1:
                say(console, f"preset: {config.preset}")
            config = _in_precision(config, kind, precision, world, console)
        check_precision(config.precision, kind.device(), kind.float32_only(config.model))
        run = RunDirectory(out)
        if resume and run.model.is_file() and read_model(run.model).config.steps == config.steps:
            done = f"{out} is finished: {config.steps} steps. led-fast evaluate {out} reports on it"
            say(console, f"{done}; a larger --steps goes on.")
            return 0
        if (config.compile if resume else compile) == "on" and (why := _why_not_compile(kind, world)):
            began = f"{out} was started with it; " if resume else ""
            raise InputError(f"--compile on: {began}torch.compile does not work: {why}")
        with _working_in(run, resume) if world.rank == 0 else nullcontext():
            if not resume:
                config = _begun(config, compile or "off", source, world, console)
            if world.rank == 0 and (not resume or steps is not None):
                write_json(run.config, {"version": __version__, **config.to_json()})
            train(run, config, source, console, world=world)
    if world.rank == 0:
        with run.locked():
            trained = load_model(run)
            if not write_report(run, trained, source, EvaluateOptions(first=True), console):
                say(console, f"a plain GAN has no density to report on; led-fast sample {out} draws from it")
    return 0


@contextmanager
def _working_in(run: RunDirectory, resume: bool) -> Iterator[None]:
    """Keeps other processes out of a run's folder; makes it for a new one, which an early error undoes."""
    if resume:
        with run.locked():
            yield
        return
    RunDirectory.create(run.path)
    with run.locked(), run.undone_at_an_error():
        yield


def _present_form(
    target: str, preset: str | None, data: str | None, resume: bool
) -> tuple[str | None, str | None]:
    """Where the data are, None for where the run has them, and the preset; version 0.1.0 named the preset first."""
    is_preset = any(target in kind.presets for kind in all_kinds())
    is_preset &= data is not None or not Path(target).exists()  # a folder of that name may be the run's
    if not is_preset:
        if data is not None and not resume:
            raise InputError(f"--data: goes with --resume; to begin, led-fast train {data}")
        return data or target, preset
    if preset is not None:
        raise InputError(f"{target}: is a preset itself; led-fast train DIR --preset {preset}")
    if data is None and not resume:
        raise InputError(
            f"{target}: is a preset; say where its data are, led-fast train DIR --preset {target}"
        )
    place = data or "DIR"
    warn(f"train {target} --data {place}: is train {place} --preset {target} now; 0.3 drops the old form")
    return data, target


def _changed(
    config: TrainConfig, objective: ObjectiveName | None, integral_samples: int | None
) -> TrainConfig:
    """The config with the options that were given; other integral samples are about as many a step."""
    if objective == "gan":
        if (changes := find_kind(config.kind).gan) is None:
            raise InputError(f"--objective: {find_kind(config.kind).about} have no plain GAN")
        config = config.changed(changes)
    if integral_samples is not None:
        if not config.recipe.integrates:
            about = find_kind(config.kind).about
            raise InputError(f"--integral-samples: training on {about} by this recipe estimates no integral")
        batches = config.recipe.batches
        integrals = max(1, batches.integrals * batches.integral_samples // integral_samples)
        config = config.changed(
            {"recipe.batches.integral_samples": integral_samples, "recipe.batches.integrals": integrals}
        )
    return config


def _in_precision(
    config: TrainConfig,
    kind: Kind,
    asked: Precision | Literal["auto"] | None,
    world: World,
    console: Console,
) -> TrainConfig:
    """The config with the precision that was asked for, or with what all processes' devices are good for."""
    if asked == "auto":
        device = kind.device()
        automatic = automatic_precision(device, kind.float32_only(config.model))
        asked = "float32" if world.any(automatic == "float32") else "bf16"
        say(console, f"precision: {asked}, on {name_device(device)}")
    return replace(config, precision=asked or "float32")


def _begun(
    config: TrainConfig,
    compile: Compile | Literal["auto"],
    source: Source,
    world: World,
    console: Console,
) -> TrainConfig:
    """The config of a new run with what a few steps tell: whether to compile, and what minutes are in steps."""
    if compile == "auto":
        config, pace = _compiled_if_it_pays(config, source, world, console)
    else:
        config, pace = replace(config, compile=compile), None
    if config.minutes is not None:
        pace = pace or measure_pace(config, source, world)
        config = replace(config, steps=pace.steps_in(config.minutes))
        say(console, f"--minutes {config.minutes:g}: {config.steps} steps on this machine")
    return config


def _compiled_if_it_pays(
    config: TrainConfig, source: Source, world: World, console: Console
) -> tuple[TrainConfig, Pace]:
    """The config with networks compiled or not, and the pace that was measured of it."""
    before = measure_pace(config, source, world)
    steps = config.steps if config.minutes is None else before.steps_in(config.minutes)

    def without(why: str) -> tuple[TrainConfig, Pace]:
        say(console, f"compile: off, because {why}")
        return config, before

    if steps * before.step < _WORTH_A_TRIAL:
        return without(f"the run takes no more than {steps * before.step:.0f} seconds as it is")
    if why := _why_not_compile(find_kind(config.kind), world):
        return without(f"torch.compile does not work: {why}")
    compiled = replace(config, compile="on")
    try:
        after = measure_pace(compiled, source, world)
    except Exception as error:  # whatever a compiler finds
        return without(first_line(error))
    pays = after.step < before.step
    paces = f"{1000 * before.step:.3g} ms as it is, of {1000 * after.step:.3g} ms compiled"
    say(console, f"compile: {'on' if pays else 'off'}: {steps} steps of {paces}")
    return (compiled, after) if pays else (config, before)


def _why_not_compile(kind: Kind, world: World) -> str:
    """Why some process cannot compile; empty where all can."""
    why = why_not_compile(kind.device())
    return (why or "another process cannot") if world.any(bool(why)) else ""


def _reopen(out: Path, asked: Sequence[tuple[str, Any]]) -> TrainConfig:
    """The config of a run to go on with; InputError where an option that was given differs from the run's.

    Where the data are is no such option: their content decides, in `reopen`.
    """
    run = RunDirectory.open(out)
    content = read_json(run.config)
    content.pop("version", None)
    config = TrainConfig.from_json(content, str(run.config))
    for name, value in asked:
        was = attrgetter(name)(config)
        if value is not None and value != was:
            option = name.rpartition(".")[2].replace("_", "-")
            raise InputError(f"--resume: {out} was started with {option} {was}, not {value}")
    return config
