"""Cells that train LED, or a GAN of its networks, on the ring or the grid and evaluate it."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from led_fast import __version__
from led_fast.data import open_source
from led_fast.density import DensityModel
from led_fast.evaluation import evaluate
from led_fast.evaluation.report import QUALITY_SAMPLES
from led_fast.files import write_json
from led_fast.random_state import seeded
from led_fast.reproduce.cell import Cell
from led_fast.reproduce.kde import KernelDensity, fit_kernel_density
from led_fast.reproduce.quality import DRAWN, density_quality, mixture_source, sample_quality
from led_fast.training import DivergenceError, RunDirectory, Source, TrainConfig, load_model, train

KDE_DRAWS = 5000
_VALIDATION = 1000


def led_cell(name: str, config: TrainConfig) -> Cell:
    """A cell that trains by a config and keeps the model and its samples."""
    return Cell(name, train_led, {"config": config.to_json()})


def train_led(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Trains, or goes on with, the run in a folder; evaluates it.

    Returns:
        The report of `led_fast.evaluation.evaluate` with `steps` and, under `kde`, what a kernel density
        estimate on 5,000 of its generator's draws reaches. Where training diverged: `diverged`, why.
    """
    settings = TrainConfig.from_json(config, folder.name)
    try:
        model = train_model(folder, settings, open_source(settings.data))
    except DivergenceError as error:
        return {"diverged": error.what}
    source = open_source(settings.data)
    evaluation = evaluate(model, source, seed=settings.seed)
    np.save(folder / "samples.npy", evaluation.samples.float().numpy())
    np.save(folder / "refined.npy", evaluation.refined.float().numpy())
    return {"steps": settings.steps, **evaluation.report, "kde": _judge_kernel_density(folder, settings)}


def gan_cell(name: str, config: TrainConfig) -> Cell:
    """A cell that trains the same networks on the same noisy data as a plain GAN.

    With LED's own two fast steps of the generator it runs away; these are the settings of a GAN.
    """
    changes = {
        "recipe.objective": "gan",
        "recipe.batches.generator_steps": 1,
        "recipe.optimizer.generator_learning_rate": config.recipe.optimizer.critic_learning_rate,
        "recipe.optimizer.betas": (0.5, 0.99),
    }
    return Cell(name, train_gan, {"config": config.changed(changes).to_json()})


def train_gan(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Trains, or goes on with, the run in a folder; returns the quality of its generator's samples."""
    settings = TrainConfig.from_json(config, folder.name)
    try:
        model = train_model(folder, settings, open_source(settings.data))
    except DivergenceError as error:
        return {"diverged": error.what}
    _, truth = mixture_source(settings.data)
    with seeded(settings.seed):
        samples = model.sample(DRAWN)
    np.save(folder / "samples.npy", samples[:QUALITY_SAMPLES].float().numpy())
    return {"steps": settings.steps, **sample_quality(samples, truth)}


def train_model(folder: Path, config: TrainConfig, source: Source) -> DensityModel:
    """The model of a run on `source`, which is begun or gone on with where it is not finished."""
    run = RunDirectory(folder)
    write_json(run.config, {"version": __version__, **config.to_json()})
    if not run.model.is_file():
        train(run, config, source, Console(quiet=True))
    return load_model(run).model


def kernel_density_of(folder: Path) -> KernelDensity:
    """A kernel density estimate on fresh draws of the generator of a finished run."""
    model, config, _ = load_model(RunDirectory(folder))
    source = open_source(config.data)
    with seeded(config.seed):
        points = model.sample(KDE_DRAWS).float()
        return fit_kernel_density(points, source.sample(_VALIDATION), source.scale.mean().item())


def _judge_kernel_density(folder: Path, config: TrainConfig) -> dict[str, Any]:
    _, truth = mixture_source(config.data)
    density = kernel_density_of(folder)
    with seeded(config.seed):
        quality = sample_quality(density.sample(DRAWN), truth)
        return {"width": density.width, **quality, **density_quality(density.log_prob, truth)}
