"""led-fast evaluate: how good a run is, and how far its numbers can be believed."""

from pathlib import Path
from typing import Annotated

from rich.console import Console
from tyro.conf import arg

from led_fast.cli.data import name_skipped, open_data, open_images_for
from led_fast.cli.options import Run, check_density
from led_fast.cli.report import write_image_report, write_plane_report
from led_fast.data.images import ImageSource
from led_fast.errors import InputError
from led_fast.evaluation import open_features
from led_fast.training import RunDirectory, image_device, load_model

_SAMPLES, _FEWEST_SAMPLES = 10_000, 100

Place = Annotated[str | None, arg(metavar="DIR|FILE", help_behavior_hint="(default: the run's)")]
Features = Annotated[str | None, arg(metavar="classifier|FILE", help_behavior_hint="(default: none)")]
Samples = Annotated[int | None, arg(metavar="INT", help_behavior_hint=f"(default: {_SAMPLES})")]
Outliers = Annotated[tuple[Path, ...], arg(metavar="DIR", help_behavior_hint="")]


def evaluate_command(
    run: Run, data: Place = None, features: Features = None, ood: Outliers = (), samples: Samples = None
) -> int:
    """Measure a trained density, and write report.json and a picture.

    led-fast evaluate runs/ring

    led-fast evaluate runs/mnist --features classifier --ood FASHION-MNIST

    Prints the quality of samples beside true ones, divergences from the truth or bits per dimension, and how far
    the normaliser of the density can be believed. The report takes the place of the one before.

    Args:
        run: folder of a finished run.
        data: where the data that it was trained on are now, if not where they were.
        features: for images, the network of the Fréchet distance: classifier trains a small one on the data's
            labels; or a .pth file with the weights of EfficientNet-Lite0, or a .pt file in TorchScript.
        ood: for images, other images that should be less dense than the test images.
        samples: for images, the number of generated images, of importance weights and of test images.
    """
    folder = RunDirectory.open(run)
    trained = load_model(folder)
    source = open_data(trained.config, place=data)
    if not isinstance(source, ImageSource):
        if features is not None or ood or samples is not None:
            raise InputError(
                f"{run}: is a run on points in the plane; --features, --ood and --samples are for images"
            )
        check_density(run, trained.config)
        write_plane_report(folder, trained, source, Console())
        return 0
    samples = _SAMPLES if samples is None else samples
    if samples < _FEWEST_SAMPLES:
        raise InputError(f"--samples: want at least {_FEWEST_SAMPLES}, got {samples}")
    if ood:
        check_density(run, trained.config)
    console = Console()
    outliers = {str(path): open_images_for(trained.config, path) for path in ood}
    for images in outliers.values():
        name_skipped(images.problems, console)
    network = None if features is None else open_features(features, source, image_device())
    write_image_report(folder, trained, source, console, network, outliers, samples)
    return 0
