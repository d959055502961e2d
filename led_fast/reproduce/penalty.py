"""The perpendicular penalty (Sec. 2.2): how much denser data are than points off the data, with and without it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from led_fast.data import DataSource, open_source
from led_fast.data.images import ImageSource
from led_fast.density import DensityModel
from led_fast.evaluation import auroc, evaluate
from led_fast.kinds import find_kind
from led_fast.models import ImageCriticConfig
from led_fast.models.dcgan_critic import Penalty
from led_fast.random_state import seeded
from led_fast.reproduce.cell import Cell
from led_fast.reproduce.content import results_by_variant
from led_fast.reproduce.experiment import Experiment
from led_fast.reproduce.led import train_model
from led_fast.reproduce.text import diverged_note, markdown_table, spread
from led_fast.training import DivergenceError, Reading, TrainConfig

_STEPS, _QUICK_STEPS = {"paper": 1700, "default": 700}, 20  # by preset
_IMAGE_STEPS, _QUICK_IMAGE_STEPS = 400, 4
_IMAGE_PRESET = "mnist32"
_POINTS = 2000
_BOX = 3.0  # half width of uniform noise in the plane, in standard deviations of the data
_SHIFT = 0.5  # of shifted points along either axis, in the same unit
_PIXELS = 5  # by which images are shifted, down and to the right
# "exact" solves a linear system for every layer and image: in the plane only.
_PENALTIES: dict[str, tuple[Penalty, ...]] = {
    "plane": ("off", "direction", "exact"),
    "images": ("off", "direction"),
}
_COLUMNS = {
    "modes": ("modes", 1),
    "% within 3σ": ("high_quality_percent", 1),
    "KL(p* ‖ p_θ)": ("kl_data_model", 4),
    "noise: margin": ("noise_margin", 0),
    "noise: AUROC": ("noise_auroc", 4),
    "shifted: margin": ("shifted_margin", 1),
    "shifted: AUROC": ("shifted_auroc", 4),
}


def perpendicular_penalty(images: str | None = None) -> Experiment:
    """The experiment on the ring and the grid and, where their place is given, on 32x32 images of one channel."""
    pictures = None if images is None else find_kind("images").open(images, _IMAGE_PRESET, Reading())

    def cells(seeds: int, quick: bool) -> list[Cell]:
        made = []
        for seed in range(seeds):
            for data in ("ring", "grid"):
                for preset, usual in _STEPS.items():
                    steps = _QUICK_STEPS if quick else usual
                    config = TrainConfig.of(open_source(data), preset, seed, steps)
                    for kind in _PENALTIES["plane"]:
                        made.append(_cell(data, config.changed({"model.critic.penalty": kind})))
            if pictures is not None:
                steps = _QUICK_IMAGE_STEPS if quick else _IMAGE_STEPS
                # Pixels are no generator that could be tilted, nor calibrated.
                changes = {"recipe.base": "first", "recipe.calibration.begin": 1.0}
                config = TrainConfig.of(pictures, _IMAGE_PRESET, seed, steps, changes=changes)
                for kind in _PENALTIES["images"]:
                    critic = ImageCriticConfig(base="pixels", penalty=kind)
                    made.append(_cell("images", config.changed({"model.critic": critic})))
        return made

    return Experiment("Perpendicular penalty", 2, cells, markdown, None)


def _cell(data: str, config: TrainConfig) -> Cell:
    name = f"penalty-{data}-{config.preset}-{config.model.critic.penalty}-{config.seed}"
    work = train_on_images if data == "images" else train_on_points
    return Cell(name, work, {"config": config.to_json()})


def train_on_points(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Trains in the plane; returns the margins to noise and to shifted points, and what else the report says."""

    def quality(model: DensityModel, source: DataSource, seed: int) -> dict[str, Any]:
        report = evaluate(model, source, seed=seed).report
        return {key: report[key] for key in ("modes", "high_quality_percent", "kl_data_model")}

    return _train_and_judge(folder, config, _off_points, quality)


def train_on_images(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Trains on images; returns the margins to noise and to shifted images."""
    return _train_and_judge(folder, config, _off_images, lambda *_: {})


def _train_and_judge(
    folder: Path,
    config: dict[str, Any],
    off_data: Callable[[Tensor, Any], dict[str, Tensor]],
    quality: Callable[[DensityModel, Any, int], dict[str, Any]],
) -> dict[str, Any]:
    settings = TrainConfig.from_json(config, folder.name)
    source: Any = find_kind(settings.kind).open(settings.data, settings.preset, Reading())
    try:
        model = train_model(folder, settings, source)
    except DivergenceError as error:
        return {"diverged": error.what}
    kept = quality(model, source, settings.seed)
    with seeded(settings.seed):
        x = source.held_out(_POINTS)
        off = off_data(x, source)
    return kept | _margins(model.unnormalized_log_prob, x, off)


def _off_points(x: Tensor, source: DataSource) -> dict[str, Tensor]:
    """Uniform noise, and the points x moved."""
    noise = source.shift + _BOX * source.scale * (2 * torch.rand_like(x) - 1)
    return {"noise": noise, "shifted": x + _SHIFT * source.scale}


def _off_images(x: Tensor, source: ImageSource) -> dict[str, Tensor]:
    """Uniform noise, and the images x moved around their edges."""
    return {"noise": torch.rand_like(x), "shifted": x.roll((_PIXELS, _PIXELS), (2, 3))}


@torch.no_grad()
def _margins(log_n: Callable[[Tensor], Tensor], x: Tensor, off_data: dict[str, Tensor]) -> dict[str, float]:
    """Mean difference in nats of log N at data and at each kind of other points, and how well it tells them apart."""
    inside, result = _in_chunks(log_n, x), {}
    for name, points in off_data.items():
        outside = _in_chunks(log_n, points)
        result[f"{name}_margin"] = (inside.mean() - outside.mean()).item()
        result[f"{name}_auroc"] = auroc(inside, outside)
    return result


def _in_chunks(log_n: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    return torch.cat([log_n(chunk).double() for chunk in points.float().split(250)])


def markdown(content: dict[str, Any]) -> str:
    """One row a data set and penalty."""
    rows = []
    for name, reports in results_by_variant(content).items():
        _, data, preset, kind = name.split("-")
        values = [spread([r.get(key) for r in reports], digits) for key, digits in _COLUMNS.values()]
        rows.append([data, f"`{preset}`", kind + diverged_note(reports), *values])
    return (
        f"Margin: mean log density of held-out data less that of other points, in nats. Noise is uniform, in the "
        f"plane over a box of ± {_BOX:g} standard deviations of the data, for images over [0, 1]; shifted data are "
        f"held-out points moved by {_SHIFT:g} standard deviations along either axis, or images by {_PIXELS} pixels. "
        f"In the plane {_STEPS['paper']:,} steps of the paper's family and {_STEPS['default']:,} of the default, a "
        f"third of their usual ones on the ring; images: {_IMAGE_STEPS:,} steps with a critic on independent pixels."
        "\n\n"
        f"{markdown_table(['data', 'preset', 'penalty', *_COLUMNS], rows)}"
    )
