"""led-fast interpolate: walks between samples of a run on images (Fig. 5)."""

from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from led_fast.cli.options import Run, check_new, check_seed, load_run_for
from led_fast.density import interpolate
from led_fast.errors import InputError
from led_fast.figures import interpolation_figure
from led_fast.gpu import gpu_or_cpu
from led_fast.random_state import seeded


def interpolate_command(
    run: Run,
    out: Annotated[Path, arg(metavar="FILE")],
    rows: int = 8,
    steps: int = 10,
    seed: int = 0,
) -> int:
    """Walk from image to image in the latent space of a trained generator.

    led-fast interpolate runs/mnist --out walks.png

    Args:
        run: folder of a finished run on images.
        out: a new .png file, with one walk in each row.
        rows: how many walks.
        steps: images in a walk, both ends included.
        seed: of the ends.
    """
    for option, value, least in (("--rows", rows, 1), ("--steps", steps, 2)):
        if value < least:
            raise InputError(f"{option}: want at least {least}, got {value}")
    check_seed(seed)
    check_new(out, (".png",))
    model = load_run_for("interpolate", run).model
    with seeded(seed, gpu_or_cpu()):
        interpolation_figure(out, interpolate(model.generator, rows, steps))
    return 0
