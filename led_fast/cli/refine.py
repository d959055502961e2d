"""led-fast refine: unlikely samples of a run on images, moved uphill in density (Fig. 12)."""

from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from led_fast.cli.options import Run, check_density, check_new, check_seed, load_run_for
from led_fast.density import ascend, far_latents
from led_fast.errors import InputError
from led_fast.figures import refinement_figure
from led_fast.gpu import gpu_or_cpu
from led_fast.random_state import seeded
from led_fast.terminal import console, say


def refine_command(
    run: Run,
    out: Annotated[Path, arg(metavar="FILE")],
    n: Annotated[int, arg(aliases=["-n"])] = 16,
    nearest: float = 1.25,
    farthest: float = 1.75,
    steps: int = 20,
    seed: int = 0,
) -> int:
    """Move latent values that are far from the mean uphill in the critic's value of their images.

    led-fast refine runs/mnist --out refined.png

    This latent ascent is no sampling: it ends at images that are denser than any sample. (led-fast sample --refine is
    another thing: importance resampling.)

    Args:
        run: folder of a finished run on images.
        out: a new .png file: each image before and after, with the critic's value, in nats, above it.
        n: how many images.
        nearest: how far from the mean the first latent value is; 1 is as far as those of typical samples.
        farthest: how far away the last one is. Some way off, images fall apart: at 2 on MNIST.
        steps: of the ascent. A few clean an image; many lose it, because the densest images are nearly blank.
        seed: of the latent values.
    """
    for option, value in (("-n", n), ("--steps", steps), ("--nearest", nearest)):
        if not value > 0:
            raise InputError(f"{option}: want a positive number, got {value}")
    if not nearest <= farthest < 100:
        raise InputError(f"--farthest: want a number from --nearest {nearest:g} to 100, got {farthest:g}")
    check_seed(seed)
    check_new(out, (".png",))
    model, config, _ = load_run_for("refine", run)
    check_density(run, config)
    with seeded(seed, gpu_or_cpu()):
        latents = far_latents(model.generator, nearest, farthest, n)
        moved = ascend(model.generator, model.critic, latents, steps)
    refinement_figure(out, *moved)
    before, after = moved.score_before.median(), moved.score_after.median()
    say(console(), f"median of the critic's value {before:.1f} nats before, {after:.1f} after {steps} steps")
    return 0
