"""Which data a command is about: points in the plane, or images for an image preset."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from led_fast.data import open_source
from led_fast.data.images import ImageSource, open_images
from led_fast.errors import InputError
from led_fast.models import IMAGE_PRESETS
from led_fast.training import PRESETS, Source, TrainConfig

_NAMED = 5  # of the pictures that were skipped


def open_target(target: str, data: str | None, preset: str | None, strict: bool) -> tuple[Source, str]:
    """Opens what `led-fast train` is to learn from.

    Args:
        target: ring, grid or a file of points; or the name of an image preset.
        data: images, for an image preset only.
        preset: networks and recipe for points.
        strict: stop at a picture that cannot be used.

    Returns:
        The data, and the preset's name.

    Raises:
        InputError: the three do not go together, or the data cannot be used.
    """
    if target in IMAGE_PRESETS:
        if data is None:
            raise InputError(f"{target}: say where its images are, with --data DIR")
        if preset is not None:
            raise InputError(f"--preset {preset}: is for points in the plane; {target} is a preset itself")
        return _open_images(data, target, strict), target
    if data is not None:
        raise InputError(f"--data: goes with an image preset ({', '.join(IMAGE_PRESETS)}), not with {target}")
    _refuse_strict(strict, target)
    if preset is not None and preset not in PRESETS:
        raise InputError(f"--preset: want one of {', '.join(PRESETS)}, got {preset!r}")
    if Path(target).is_dir() or Path(target).suffix == ".npz":
        raise InputError(f"{target}: holds no points; for images, led-fast train mnist32 --data {target}")
    return open_source(target), preset or "default"


def open_data(config: TrainConfig, strict: bool = False, place: str | None = None) -> Source:
    """Opens the data of a run again; InputError where their content has changed.

    Args:
        config: of the run.
        strict: stop at a picture that cannot be used.
        place: where they are now; None: where they were.
    """
    found = place or config.data
    if not config.is_image:
        _refuse_strict(strict, found)
    try:
        source: Source = _open_images(found, config.preset, strict) if config.is_image else open_source(found)
    except InputError as error:
        if place is not None or Path(config.data).exists():
            raise
        raise InputError(f"{error}; these are the run's data: --data tells where they are now") from None
    if source.fingerprint != config.data_fingerprint:
        raise InputError(f"{found}: is not the data, {config.data}, that the run was begun with")
    return source


def open_images_for(config: TrainConfig, path: Path) -> ImageSource:
    """Opens other images for a run on images, of the same shape."""
    return _open_images(str(path), config.preset)


def _open_images(path: str, preset: str, strict: bool = False) -> ImageSource:
    """Opens images of the shape that a preset's networks take."""
    shape = IMAGE_PRESETS[preset].shape
    source = open_images(path, strict, size=shape[-1])
    if source.shape != shape:
        fitting = [name for name, other in IMAGE_PRESETS.items() if other.shape == source.shape]
        advice = f"; for these, {' or '.join(fitting)}" if fitting else ""
        raise InputError(f"{path}: {preset} wants images of shape {shape}, got {source.shape}{advice}")
    return source


def _refuse_strict(strict: bool, points: str) -> None:
    if strict:
        raise InputError(f"--strict: is about pictures that cannot be used; {points} has none")


def name_skipped(problems: Sequence[str], console: Console) -> None:
    """Names the pictures that could not be used, or the first few of them."""
    for problem in problems[:_NAMED]:
        console.print(f"skipped {problem}", highlight=False, soft_wrap=True, markup=False)
    if problems:
        console.print(f"{len(problems)} pictures of no use were skipped", highlight=False)
