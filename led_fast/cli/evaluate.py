"""led-fast evaluate: how good a run is, and how far its numbers can be believed."""

from itertools import chain
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from led_fast.cli.data import reopen, require
from led_fast.cli.options import Run, Several, check_density
from led_fast.cli.report import write_report
from led_fast.kinds import find_kind
from led_fast.kinds.kind import EvaluateOptions
from led_fast.terminal import console
from led_fast.training import RunDirectory, load_model

Place = Annotated[str | None, arg(metavar="DIR|FILE", help_behavior_hint="(default: the run's)")]
Features = Annotated[str | None, arg(metavar="classifier|FILE", help_behavior_hint="(default: none)")]
Samples = Annotated[int | None, arg(metavar="INT", help_behavior_hint="(default: 10000)")]
Outliers = Annotated[Several[Path], arg(metavar="DIR", help_behavior_hint="")]

Anomaly = Annotated[str | None, arg(metavar="COLUMN=VALUE", help_behavior_hint="")]


def evaluate_command(
    run: Run,
    data: Place = None,
    features: Features = None,
    ood: Outliers = (),
    samples: Samples = None,
    refined: bool = False,
    anomaly: Anomaly = None,
) -> int:
    """Measure a trained density, and write report.json and a picture.

    led-fast evaluate runs/ring

    led-fast evaluate runs/table --anomaly class=fraud

    led-fast evaluate runs/mnist --features classifier --ood FASHION-MNIST

    Prints the quality of samples beside true ones, divergences from the truth, log likelihood or bits per dimension,
    and how far the normaliser of the density can be believed. The report takes the place of the one before.

    Args:
        run: folder of a finished run.
        data: where the data that it was trained on are now, if not where they were.
        features: for images, the network of the Fréchet distance: classifier trains a small one on the data's
            labels; or a .pth file with the weights of EfficientNet-Lite0, or a .pt file in TorchScript.
        ood: for images, other images that should be less dense than the test images.
        samples: for images, the number of generated images, of importance weights and of test images.
        refined: for images with --features, also the Fréchet distance of images of the density itself, as led-fast
            sample --refine draws them; on a CPU a quarter of an hour or more.
        anomaly: for tables, a column that was ignored and its value in rows that should be less dense than the others.
    """
    folder = RunDirectory.open(run)
    trained = load_model(folder)
    config, kind = trained.config, find_kind(trained.config.kind)
    given = {
        "--features": features,
        "--ood": ood or None,
        "--samples": samples,
        "--refined": refined or None,
        "--anomaly": anomaly,
    }
    require(kind, *(option for option, value in given.items() if value is not None))
    if ood or refined:
        check_density(run, config)
    source = reopen(config, place=data)
    options = EvaluateOptions(features, tuple(chain.from_iterable(ood)), samples, refined, anomaly)
    with folder.locked():
        reported = write_report(folder, trained, source, options, console())
    if not reported:
        check_density(run, config)
    return 0
