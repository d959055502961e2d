"""led-fast sample: draws from a run."""

from typing import Annotated

import torch
from tyro.conf import arg

from led_fast.cli.columns import write_columns
from led_fast.cli.options import Output, Run, check_new, check_seed
from led_fast.errors import InputError
from led_fast.figures import sample_figure
from led_fast.training import load


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
    check_seed(seed)
    check_new(out, (".npy", ".csv", ".png"))
    model = load(run)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        points = model.sample(n, refine=refine)
    if out is not None and out.suffix == ".png":
        sample_figure(out, points, model.log_prob)
    else:
        write_columns(points.numpy(), ["x1", "x2"], out)
    return 0
