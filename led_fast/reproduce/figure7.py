"""Figure 7: the estimated normaliser against the number of samples, for three numbers of integral samples."""

import math
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from led_fast.data import DataSource, open_source
from led_fast.density import DensityModel, effective_sample_size, log_mean_exp, pareto_k
from led_fast.evaluation import quadrature_in_data_coordinates
from led_fast.figures.normalizer import NormalizerPanel, normalizer_figure
from led_fast.files import read_json, write_json
from led_fast.models import in_data_coordinates
from led_fast.random_state import seeded
from led_fast.reproduce.cell import Cell, Finished
from led_fast.reproduce.experiment import Experiment
from led_fast.reproduce.text import MISSING, markdown_table, spread
from led_fast.training import DivergenceError, RunDirectory, TrainConfig, Trainer, train

DATA = "grid"
_PRESETS = ("paper", "default")
INTEGRAL_SAMPLES = (1, 64, 256)
SAMPLES = tuple(4**i for i in range(8))  # 1 to 16,384
REPEATS = 20
_PROPOSALS = 256  # a critic step: one estimate with S = 256, 256 estimates with S = 1
_STEPS, _MOMENTS = 2000, (200, 500, 1000, 2000)
_QUICK_STEPS, _QUICK_MOMENTS = 40, (20, 40)


def cells(seeds: int, quick: bool) -> list[Cell]:
    """A preset's recipe but for S, with 256 proposals a step for any S, measured at several moments of training."""
    steps, moments = (_QUICK_STEPS, _QUICK_MOMENTS) if quick else (_STEPS, _MOMENTS)
    made = []
    for seed, preset, s in product(range(seeds), _PRESETS, INTEGRAL_SAMPLES):
        changes = {"recipe.batches.integral_samples": s, "recipe.batches.integrals": _PROPOSALS // s}
        config = TrainConfig.of(open_source(DATA), preset, seed, steps, changes=changes)
        settings = {"config": config.to_json(), "moments": list(moments)}
        made.append(Cell(f"normalizer-{preset}-{s}-{seed}", train_and_measure, settings))
    return made


def train_and_measure(folder: Path, config: dict[str, Any], moments: list[int]) -> dict[str, Any]:
    """Trains, or goes on, and measures the normaliser after every step of `moments`; see `measure`."""
    settings = TrainConfig.from_json(config, folder.name)
    source = open_source(settings.data)

    def look(trainer: Trainer) -> None:
        step = trainer.steps_done
        if step in moments:
            model = in_data_coordinates(
                trainer.average_critic, trainer.average_generator, source.shift, source.scale
            )
            write_json(folder / f"step-{step}.json", {"step": step, **measure(model, source, seed=step)})

    try:
        train(RunDirectory(folder), settings, source, Console(quiet=True), look)
    except DivergenceError as error:
        return {"diverged": error.what}
    return {"moments": [read_json(folder / f"step-{step}.json") for step in moments]}


@torch.no_grad()
def measure(model: DensityModel, source: DataSource, seed: int) -> dict[str, Any]:
    """20 repeats of log α̂ - log α for each number of samples, with log α by quadrature, and diagnostics.

    Torch's random numbers are left as they were.

    Args:
        model: in the coordinates of the data; its generator is the proposal.
        source: the data.
        seed: of the draws.
    """
    with seeded(seed):
        log_weights = torch.stack([_log_weights(model, SAMPLES[-1]) for _ in range(REPEATS)])
    quadrature = quadrature_in_data_coordinates(model.critic, source.shift, source.scale)
    return {
        "log_alpha": quadrature.value,
        "log_errors": [
            [_finite(value - quadrature.value) for value in log_mean_exp(log_weights[:, :n]).tolist()]
            for n in SAMPLES
        ],
        "ess_fraction": effective_sample_size(log_weights) / log_weights.numel(),
        "pareto_k": _finite(pareto_k(log_weights)),
    }


def _log_weights(model: DensityModel, n: int) -> Tensor:
    y, log_q = model.generator.rsample_and_log_prob(n)
    return (model.critic(y) - log_q).double()


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def markdown(content: dict[str, Any]) -> str:
    """A row for every model and moment."""
    rows = []
    for name, cell in content["cells"].items():
        _, preset, s, _ = name.split("-")
        if "diverged" in cell["result"]:
            rows.append([f"`{preset}`", s, "diverged", *[MISSING] * 6])
        for moment in cell["result"].get("moments", []):
            errors = dict(zip(SAMPLES, moment["log_errors"], strict=True))
            rows.append(
                [f"`{preset}`", s, f"{moment['step']:,}", f"{moment['log_alpha']:.2f}"]
                + [spread(errors[n], 3) for n in (64, 1024, SAMPLES[-1])]
                + [f"{moment['ess_fraction']:.3f}", _two(moment["pareto_k"])]
            )
    header = [
        "preset",
        "S in training",
        "step",
        "log α",
        "error, 64 samples",
        "1,024",
        f"{SAMPLES[-1]:,}",
        "ESS/S",
        "k̂",
    ]
    return (
        f"Error: log α̂ - log α (by quadrature) in nats, mean ± standard deviation of {REPEATS} repeats; ESS/S and k̂ of "
        f"all {REPEATS * SAMPLES[-1]:,} weights.\n\n{markdown_table(header, rows)}"
    )


def draw(path: Path, results: Sequence[Finished], note: str) -> None:
    """α̂/α with bars of 1σ: a row a preset and moment, a column an S; the first seed."""
    n = len(INTEGRAL_SAMPLES)
    first = [_panels(result) for result in results[: len(_PRESETS) * n]]
    of_one_s = [first[i::n] for i in range(n)]
    columns = [[panel for panels in each for panel in panels] for each in of_one_s if all(each)]
    if columns:  # not all of them diverged
        normalizer_figure(path, list(zip(*columns, strict=True)), note)


def _panels(result: Finished) -> list[NormalizerPanel]:
    _, preset, s, _ = result.cell.name.split("-")
    panels = []
    for moment in result.result.get("moments", []):
        ratios = [[_ratio(error) for error in errors] for errors in moment["log_errors"]]
        panels.append(
            NormalizerPanel(
                f"{preset}, S = {s}, step {moment['step']:,}",
                SAMPLES,
                [mean(values) for values in ratios],
                [stdev(values) for values in ratios],
                f"log α = {moment['log_alpha']:.1f}   ESS/S {moment['ess_fraction']:.2f}   "
                f"k̂ {_two(moment['pareto_k'])}",
            )
        )
    return panels


def _ratio(log_error: float | None) -> float:
    return math.nan if log_error is None else math.exp(min(log_error, 50.0))


def _two(value: float | None) -> str:
    return "∞" if value is None else f"{value:.2f}"


FIGURE_7 = Experiment("Figure 7: the normaliser against the number of samples", 1, cells, markdown, draw)
