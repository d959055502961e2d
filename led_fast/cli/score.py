"""led-fast score: log densities of a user's points or images."""

import csv
import io
from pathlib import Path
from typing import Annotated

import torch
from rich.console import Console
from tyro.conf import Positional, arg

from led_fast.cli.columns import write_columns, write_text
from led_fast.cli.data import name_skipped
from led_fast.cli.doubt import doubt, doubt_about, warn
from led_fast.cli.options import Output, Run, check_density, check_new
from led_fast.data import read_rows
from led_fast.data.images import read_images
from led_fast.density import DensityModel
from led_fast.errors import InputError
from led_fast.evaluation import score_images
from led_fast.training import RunDirectory, TrainConfig, image_device, load_model

_SCORE_BATCH = 16_384


def score_command(
    run: Run, data: Annotated[Positional[Path], arg(metavar="FILE|DIR")], out: Output = None
) -> int:
    """Compute the log density, in nats, of every row of a file, or of every image.

    led-fast score runs/ring points.csv --out scores.csv

    led-fast score runs/mnist FOLDER --out scores.csv

    Images also get bits per dimension, and their rank: 1 is the densest, the last is the strangest. Where the last
    report calls log α unreliable, so does a warning: it moves all values alike, and no rank.

    Args:
        run: folder of a finished run.
        data: a .npy or .csv file with two columns, all finite; for images, whatever led-fast train takes.
        out: a new .csv file, or for points .npy.
    """
    check_new(out, (".csv", ".npy"))
    folder = RunDirectory.open(run)
    model, config, _ = load_model(folder)
    check_density(run, config)
    if model.log_normalizer.isnan():
        raise InputError(f"{run}: its log α could not be estimated, so that it has no densities to score by")
    if config.is_image:
        _score_images(model, config, data, out)
        warn(doubt_about(folder))
    else:
        _score_points(model, data, out)
        warn(doubt(model.verdict))
    return 0


def _score_points(model: DensityModel, file: Path, out: Path | None) -> None:
    rows = read_rows(file)
    with torch.no_grad():
        scores = torch.cat([model.log_prob(chunk) for chunk in rows.split(_SCORE_BATCH)])
    if scores.isnan().any():
        row = int(scores.isnan().int().argmax())
        raise InputError(f"{file}: row {row + 1} is too far from the data to score: {rows[row].tolist()}")
    write_columns(scores[:, None].double().numpy(), ["log_density"], out)


def _score_images(model: DensityModel, config: TrainConfig, data: Path, out: Path | None) -> None:
    if out is not None and out.suffix != ".csv":
        raise InputError(f"--out {out}: want a .csv file for images, whose names are text")
    channels, height, width = config.shape
    images, device = read_images(data, size=height), image_device()
    name_skipped(images.skipped, Console(stderr=True))
    shape = tuple(images.train.images.shape[1:])
    if shape != config.shape:
        raise InputError(f"{data}: want images of shape {config.shape}, got {shape}")
    scores = score_images(model.to(device).log_prob, images, (channels, height, width), device=device)
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["name", "log_density", "bits_per_dim", "rank"])
    for score in scores:
        table.writerow([score.name, f"{score.log_prob:.3f}", f"{score.bits_per_dim:.5f}", score.rank])
    write_text(text.getvalue(), out)
