"""Table 2: samples and likelihoods on images, LED by the number of integral samples beside baselines."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from led_fast import __version__
from led_fast.data.images import ImageSource, open_images
from led_fast.density import DensityModel, Verdict
from led_fast.errors import InputError
from led_fast.evaluation import (
    ImageEvaluation,
    evaluate_image_flow,
    evaluate_image_samples,
    evaluate_images,
    open_features,
)
from led_fast.figures import interpolation_figure
from led_fast.files import read_json, write_json
from led_fast.gpu import gpu_or_cpu
from led_fast.kinds.images import GAN, KIND
from led_fast.models import IMAGE_PRESETS
from led_fast.reproduce import glow
from led_fast.reproduce.cell import Cell, Finished
from led_fast.reproduce.experiment import Experiment
from led_fast.reproduce.glow import GlowConfig
from led_fast.reproduce.glow_cell import train_glow
from led_fast.reproduce.literature import TABLE2
from led_fast.reproduce.selection import evaluate_selected, moments
from led_fast.reproduce.text import MISSING, markdown_table
from led_fast.training import (
    DivergenceError,
    Reading,
    RunDirectory,
    TrainConfig,
    Trainer,
    load_model,
    steps_in,
    train,
)
from led_fast.training.model import TrainedModel, write_model
from led_fast.training.settings import CALIBRATION

_METHODS = {
    "gan": "DC-GAN of the same networks",
    "likelihood": "the generator alone, by maximum likelihood",
    "sigmoid": "the same, the logistic function as last map",
    "glow": "Glow, by maximum likelihood",
    "led-1": "**LED-1**",
    "led-64": "**LED-64**",
    "led-256": "**LED-256**",
    "paper-1": "LED-1, the paper's family",
    "paper-64": "LED-64, the paper's family",
    "paper-256": "LED-256, the paper's family",
}
_INTEGRALS: dict[str, Mapping[str, Any]] = {
    "1": {"recipe.batches.integral_samples": 1, "recipe.batches.integrals": 64},
    "64": {"recipe.batches.integral_samples": 64, "recipe.batches.integrals": 1},
    "256": {
        "recipe.batches.integral_samples": 256,
        "recipe.batches.integrals": 1,
        "recipe.batches.micro_batch": 128,
    },
}
# Where the rate is to have fallen before the end, because a critic learns then, it falls until the end instead.
_LIKELIHOOD: Mapping[str, Any] = {"recipe.warm_up": 1.0, "recipe.optimizer.decay_until": 1.0}
_CHANGES: dict[str, Mapping[str, Any]] = {  # of a preset
    "gan": GAN,
    "likelihood": _LIKELIHOOD,
    "sigmoid": {**_LIKELIHOOD, "model.generator.last_map": "sigmoid"},
    **{f"led-{s}": changes for s, changes in _INTEGRALS.items()},
    **{f"paper-{s}": changes for s, changes in _INTEGRALS.items()},
}
_QUICK_STEPS = 8
_SIZES = {"samples": 5000, "temperatures": 200, "chains": 500}  # of the evaluation
_QUICK_SIZES = {"samples": 200, "temperatures": 10, "chains": 40}
_HEADER = (
    "",
    "minutes",
    "step selected",
    "Fréchet distance, raw / refined",
    "test b/p",
    "sample b/p, generator / critic",
    "test bits/dim, critic / generator",
    "gained by the tilt",
    "ESS/S of log α",
)
_PAPER_HEADER = ("FID", "test b/p", "sample b/p, generator", "sample b/p, critic")
_KEY = (
    "Every method is to train for the same time, which its steps are counted from beforehand; minutes are what they "
    "took. All but Glow and the paper's family are of the same networks, the GAN at rates and a gradient penalty of "
    "its own. The last map is the one that suits the data, where a row names no other. The step is selected by the "
    "Fréchet distance from validation images; of a critic that is calibrated it is the last, because log α can be told "
    "only then. LED begins with a generator that has learned by maximum likelihood, for half of the steps; its critic "
    "tilts the generator's density while that follows, until 90 %, and then, calibrated with 64 integral samples, the "
    "density of the generator as it has become. The paper's family has no couplings and no such stages: critic and "
    "generator learn together. b/p is the paper's: bits per pixel of the density on [-1, 1], without the offset of "
    "discrete data (uniform: 1 a channel). bits/dim has that offset (uniform: 8). Refined images are resampled by "
    "importance, and those of ours moved by ten Langevin transitions. What the tilt gains is in bits/dim, image by "
    "image, ± the standard error, which log α's is part of. The generator's values, and Glow's, are exact, those with "
    "≤ or ≥ bounds; the critic's are as good as log α, and marked where that is not to be relied on. One image of "
    "samples a row, in the table's order.\n"
)
_GLOW = (
    "Glow, of normflows' layers and the last map `{last_map}`, has {levels} levels of {depth} steps, with {width} "
    "hidden channels; what a level splits off is normal, with a mean and a deviation learned for each coordinate, "
    "which in Glow's paper depend on the rest. It is trained with {batch_size} images a step.\n"
)
_NO_GLOW = 'Glow was not run: `pip install "led_fast[flow]"` adds its row.\n'


def table2(data: str, budget: float) -> Experiment:
    """The experiment on a user's images.

    Args:
        data: where they are; gray 32x32 (MNIST), RGB 32x32 or RGB 64x64.
        budget: minutes of training, of all methods together.
    """
    source = KIND.open(data, None, Reading())
    if source.labels is None:
        raise InputError(
            f"{data}: has no labels, which the features of the Fréchet distance are learned from"
        )
    fitting = [name for name, preset in IMAGE_PRESETS.items() if preset.shape == source.shape]
    if not fitting:
        raise InputError(f"{data}: no preset is for images of shape {source.shape}")
    make = partial(cells, source=source, presets=fitting, budget=budget)
    return Experiment(f"Table 2: {Path(data).name}", 1, make, markdown, draw, alone=True)


def cells(seeds: int, quick: bool, source: ImageSource, presets: Sequence[str], budget: float) -> list[Cell]:
    """Every method, Glow where normflows is installed, for the same time and every seed.

    Args:
        seeds: how many.
        quick: a few steps.
        source: the images.
        presets: of their shape: ours first, and the paper's, where there is one.
        budget: minutes of all cells together.
    """
    families = {"paper" if preset.startswith("paper_") else "": preset for preset in presets}
    best_map = TrainConfig.of(source, families[""], steps=1).model.generator.last_map
    left_out = {"glow": not glow.available(), "sigmoid": best_map == "sigmoid"}
    methods = [m for m in _METHODS if not left_out.get(m) and _family(m) in families]
    minutes = None if quick else budget / (len(methods) * seeds)
    sizes = _QUICK_SIZES if quick else _SIZES
    made = []
    for seed in range(seeds):
        steps = _QUICK_STEPS if quick else None
        of_family = {
            name: TrainConfig.of(source, preset, seed, steps, minutes) for name, preset in families.items()
        }
        made += [_cell(method, of_family[_family(method)], sizes) for method in methods]
    return made


def _family(method: str) -> str:
    return "paper" if method.startswith("paper-") else ""


def _cell(method: str, config: TrainConfig, sizes: dict[str, int]) -> Cell:
    name = f"{method}-{config.seed}"
    if method == "glow":
        flow = GlowConfig(
            config.data,
            config.data_fingerprint,
            config.seed,
            config.steps,
            config.minutes,
            config.model.shape,
            last_map=config.model.generator.last_map,
        )
        return Cell(name, train_glow, {"config": flow.to_json(), "samples": sizes["samples"]})
    varied = config.changed(_CHANGES[method])
    return Cell(name, train_images, {"config": varied.to_json(), **sizes})


def train_images(
    folder: Path, config: dict[str, Any], samples: int, temperatures: int, chains: int
) -> dict[str, Any]:
    """Trains, or goes on with, the run in a folder; evaluates the model that its validation images select.

    Args:
        folder: of the run; gets `samples.npy`.
        config: of `TrainConfig`; its steps are counted anew where it names minutes.
        samples: of the evaluation, see `evaluate_images`.
        temperatures: likewise.
        chains: likewise.

    Returns:
        What `evaluate_selected` does, with the report of `evaluate_images`, or of as much as the method has.
        Where training diverged: `diverged`, why.
    """
    settings = TrainConfig.from_json(config, folder.name)
    source = open_images(settings.data, size=settings.model.shape[-1])
    features = open_features("classifier", source, gpu_or_cpu())
    try:
        settings = _train(RunDirectory(folder), settings, source)
    except DivergenceError as error:
        return {"diverged": error.what}
    kept = {step: folder / str(step) for step in _moments(settings)} | {settings.steps: folder}
    trained = {step: load_model(RunDirectory(path)) for step, path in kept.items()}
    models = {step: each.model.to(gpu_or_cpu()) for step, each in trained.items()}
    seed, seconds = settings.seed, trained[settings.steps].seconds

    def evaluate(model: DensityModel) -> ImageEvaluation:
        if not settings.recipe.has_density:
            return evaluate_image_samples(model, source, seed, features, samples)
        if settings.recipe.warm_up == 1:  # its critic has not learned anything
            return evaluate_image_flow(model.generator, source, seed, features, samples)
        return evaluate_images(
            model, source, seed, features, None, samples, temperatures, chains, refined=True
        )

    return evaluate_selected(folder, models, source, features, seed, seconds, evaluate)


def _train(run: RunDirectory, config: TrainConfig, source: ImageSource) -> TrainConfig:
    """Trains where the run is not finished, leaving models on the way; returns the config with its steps."""
    if run.config.exists():
        content = read_json(run.config)
        content.pop("version")
        config = TrainConfig.from_json(content, str(run.config))
    else:
        if config.minutes is not None:
            config = replace(config, steps=steps_in(config.minutes, config, source))
        write_json(run.config, {"version": __version__, **config.to_json()})
    if not run.model.is_file():
        train(run, config, source, Console(quiet=True), partial(_keep, run.path, _moments(config)))
    return config


def _moments(config: TrainConfig) -> list[int]:
    """Steps before the last whose model may be selected: none where the last stage is what makes log α known."""
    return [] if config.recipe.stages[-1].name == CALIBRATION else moments(config.steps)


def _keep(folder: Path, steps: Sequence[int], trainer: Trainer) -> None:
    """Saves the model of one of these steps; its log-normaliser is estimated only if it is selected."""
    if trainer.steps_done in steps:
        run = RunDirectory(folder / str(trainer.steps_done))
        run.path.mkdir(exist_ok=True)
        untested = DensityModel(trainer.average_critic, trainer.average_generator)
        write_model(run.model, TrainedModel(untested, trainer.config, 0.0))


def markdown(content: dict[str, Any]) -> str:
    """Ours, then the paper's."""
    results = {name: cell["result"] for name, cell in content["cells"].items()}
    features = {
        f"features of {q['features']}, {q['images']} images of each kind, real ones {q['distance_real']:.2f}"
        for q in (result.get("quality") for result in results.values())
        if q
    }
    rows = [_row(_method(name), cell) for name, cell in content["cells"].items()]
    glows = [cell["settings"]["config"] for name, cell in content["cells"].items() if _method(name) == "glow"]
    parts = [
        _KEY,
        f"Fréchet distance: {'; '.join(sorted(features))}.\n",
        markdown_table(_HEADER, rows),
        _GLOW.format(**glows[0]) if glows else _NO_GLOW,
    ]
    for data, reported in TABLE2.items():
        paper = [[r.method, *(MISSING if v is None else f"{v:g}" for v in r[1:])] for r in reported]
        parts.append(markdown_table([f"the paper, {data}", *_PAPER_HEADER], paper))
    return "\n".join(parts)


def _row(method: str, cell: dict[str, Any]) -> list[str]:
    label, result = _METHODS[method], cell["result"]
    if "diverged" in result:
        return [label, "diverged", *[MISSING] * (len(_HEADER) - 2)]
    head = [
        label,
        f"{result['training_seconds'] / 60:.1f}",
        f"{result['selected_step']:,} of {result['steps']:,}",
        f"{result['quality']['distance']:.2f}{_refined(result)}",
    ]
    if method == "gan":
        return [*head, *[MISSING] * (len(_HEADER) - len(head))]
    pixel, exact = result["bits_per_pixel"], result["bits_per_dim_generator"]
    if method in ("likelihood", "sigmoid", "glow"):
        sample = f"{_number(pixel['samples_generator'])} / {MISSING}"
        return [*head, _number(pixel["test"]), sample, f"{MISSING} / {_number(exact)}", MISSING, MISSING]
    alpha = Verdict.from_json(result["log_normalizer"])
    mark = "" if alpha.reliable else " (unreliable)"
    return [
        *head,
        _number(pixel["test"]) + mark,
        f"{_by_generator(result, pixel['samples_generator'], '≥')} / {_number(pixel['samples_critic'])}{mark}",
        f"{_number(result['bits_per_dim'])}{mark} / {_by_generator(result, exact, '≤')}",
        _gain(result, mark),
        _number((alpha.evidence.get("base") or alpha.evidence["generator"])["ess_fraction"], 5),
    ]


def _refined(result: dict[str, Any]) -> str:
    refined = result.get("quality_refined")
    return f" / {refined['distance']:.2f}" if refined else ""


def _gain(result: dict[str, Any], mark: str) -> str:
    """What the tilt gains; nothing where the generator's own density is a bound."""
    if result.get("gain") is None or result["generator_density"] != "exact":
        return MISSING
    return f"{result['gain']:.5f} ± {_number(result['gain_standard_error'], 5)}{mark}"


def _by_generator(result: dict[str, Any], value: float | None, bound: str) -> str:
    """A value under the generator; a bound where it has a surrogate density."""
    exact = value is None or result.get("generator_density", "exact") == "exact"
    return _number(value) if exact else f"{bound} {_number(value)}"


def _method(cell: str) -> str:
    """The method of a cell."""
    return cell.rsplit("-", 1)[0]


def _number(value: float | None, digits: int = 3) -> str:
    return MISSING if value is None else f"{value:.{digits}f}"


def draw(path: Path, results: Sequence[Finished], note: str) -> None:
    """Samples, a row a method, in the order of the table."""
    rows = [torch.from_numpy(np.load(file)) for r in results if (file := r.folder / "samples.npy").exists()]
    if rows:  # else every method diverged
        interpolation_figure(path, torch.stack(rows))
