"""Options that commands share, and their checks."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from led_fast.density import DensityModel
from led_fast.errors import InputError
from led_fast.training import RunDirectory, TrainConfig, image_device, load_model

Run = Annotated[Positional[Path], arg(metavar="RUN")]
Output = Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="(default: CSV on standard output)")]


def check_seed(seed: int) -> None:
    """InputError where torch would not take the seed."""
    if not 0 <= seed < 2**63:
        raise InputError(f"--seed: want a number from 0 to 2^63 - 1, got {seed}")


def check_new(out: Path | None, suffixes: tuple[str, ...]) -> None:
    """InputError where an output file exists, has no folder, or a suffix that the command cannot write."""
    if out is None:
        return
    if out.suffix not in suffixes:
        raise InputError(f"--out {out}: want a file that ends in {', '.join(suffixes)}")
    if out.exists():
        raise InputError(f"--out {out}: exists already, and nothing is overwritten")
    if not out.parent.is_dir():
        raise InputError(f"--out {out}: there is no folder {out.parent}")


def check_density(run: Path, config: TrainConfig) -> None:
    """InputError where a run is of a plain GAN, whose critic is a classifier."""
    if config.recipe.objective == "gan":
        raise InputError(f"{run}: is a plain GAN, which has no density; led-fast sample draws from it")


def load_images_run(path: Path) -> tuple[DensityModel, TrainConfig]:
    """Loads a finished run on images; InputError where it is one on points."""
    model, config, _ = load_model(RunDirectory.open(path))
    if not config.is_image:
        raise InputError(f"{path}: is a run on points in the plane; this command is for images")
    return model.to(image_device()), config
