"""led-fast sample: draws from a run."""

from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor
from tyro.conf import arg

from led_fast.cli.columns import write_array, write_columns
from led_fast.cli.doubt import doubt, doubt_about, warn
from led_fast.cli.options import Output, Run, check_density, check_new, check_seed
from led_fast.data.images import quantize
from led_fast.density import DensityModel
from led_fast.errors import InputError
from led_fast.figures import grid_figure, sample_figure, sorted_figure
from led_fast.random_state import seeded
from led_fast.training import RunDirectory, device_of, load_model

Count = Annotated[
    int | None, arg(aliases=["-n"], metavar="INT", help_behavior_hint="(default: 1000, or 100 images)")
]


def sample_command(run: Run, n: Count = None, refine: bool = False, seed: int = 0, out: Output = None) -> int:
    """Draw points or images from a trained density.

    led-fast sample runs/ring -n 10000 --refine --out points.npy

    led-fast sample runs/mnist --out samples.png

    A .png of images shows the densest first, with the log density, in nats, above each, and says so where the last
    report calls log α unreliable.

    Args:
        run: folder of a finished run.
        n: how many.
        refine: for points, resample the generator's draws by importance, so that they follow the density itself.
            (led-fast refine, for images, is another thing: latent ascent.)
        seed: of the draws.
        out: a new .npy, .csv or .png file; for images .npy (uint8, of shape (n, C, H, W)) or .png.
    """
    if n is not None and n < 1:
        raise InputError(f"-n: want a positive number, got {n}")
    check_seed(seed)
    check_new(out, (".npy", ".csv", ".png"))
    folder = RunDirectory.open(run)
    model, config, _ = load_model(folder)
    if not config.is_image and (refine or (out is not None and out.suffix == ".png")):
        check_density(run, config)
    if config.is_image:
        if refine:
            raise InputError("--refine: is for points; led-fast refine moves images uphill in density")
        if out is None or out.suffix == ".csv":
            raise InputError("--out: want a .png or .npy file for images")
    device = device_of(config)
    model = model.to(device)
    with seeded(seed, device), torch.no_grad():
        drawn = model.sample(n or (100 if config.is_image else 1000), refine=refine)
    if not config.is_image and (refine or (out is not None and out.suffix == ".png")):
        warn(doubt(model.verdict))
    if config.is_image and out is not None:
        _write_images(folder, model, drawn, out)
    elif out is not None and out.suffix == ".png":
        sample_figure(out, drawn, model.log_prob)
    else:
        write_columns(drawn.numpy(), ["x1", "x2"], out)
    return 0


def _write_images(run: RunDirectory, model: DensityModel, images: Tensor, out: Path) -> None:
    if out.suffix == ".npy":
        write_array(out, quantize(images).cpu().numpy())
    elif model.log_normalizer.isnan():
        grid_figure(out, images)
    else:
        with torch.no_grad():
            sorted_figure(out, images, model.log_prob(images), note=doubt_about(run))
