"""Images as a kind of data."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from led_fast.data.images import ImageSet, ImageSource, ImageStream, open_images, quantize, read_images
from led_fast.density import DensityModel, Verdict
from led_fast.errors import InputError
from led_fast.evaluation import (
    ImageEvaluation,
    evaluate_image_samples,
    evaluate_images,
    image_report_table,
    open_features,
    score_image_batches,
)
from led_fast.evaluation.in_parts import IMAGES_AT_A_TIME, drawn_in_parts, in_parts
from led_fast.evaluation.quality import real_images
from led_fast.evaluation.refined_images import refine_images
from led_fast.figures import grid_figure, sorted_figure
from led_fast.gpu import gpu_or_cpu
from led_fast.kinds.images.settings import GAN, PRESETS, ImagesModel
from led_fast.kinds.images.task import ImagesTask, image_networks
from led_fast.kinds.kind import EvaluateOptions, Preset, Report, Rows
from led_fast.kinds.write import write_array
from led_fast.models import best_last_map
from led_fast.random_state import seeded
from led_fast.terminal import say
from led_fast.training.config import Reading, TrainConfig
from led_fast.training.model import TrainedModel
from led_fast.training.world import World

_SAMPLES, _FIRST_SAMPLES, _FEWEST_SAMPLES = 10_000, 5000, 100
# Of the annealing, whose weights are to be even enough to decide. The first report does with less, as it does where
# weights are bounded, because the bound decides then.
_ANNEALING = {"temperatures": 500, "chains": 300}
_LIGHT_ANNEALING = {"temperatures": 200, "chains": 200}
_SHOWN = 100
_SIDES = (64, 32)  # of pictures
_JUDGED = 500  # images, by which the last map is chosen
_NAMED = 5  # of the pictures that were skipped


class ImagesKind:
    """Images; see `led_fast.kinds.kind.Kind`."""

    name = "images"
    about = "images"
    presets = tuple(PRESETS)
    model_type = ImagesModel
    can = frozenset(
        {"--strict", "--features", "--ood", "--samples", "--refine", "--refined", "interpolate", "refine"}
    )
    gan: Mapping[str, Any] | None = GAN
    parallel = True
    default_samples = 100
    sample_suffixes = (".png", ".npy")
    score_suffixes = (".csv",)

    def claims(self, place: str, reading: Reading) -> bool:
        """Folders and .npz files."""
        return Path(place).is_dir() or place.lower().endswith(".npz")

    def open(self, place: str, preset: str | None, reading: Reading) -> ImageSource:
        """Opens images of the shape that a preset's networks take; without one, of the largest that most have."""
        if preset is None:
            return _open_suited(place, reading.strict)
        source = open_images(place, reading.strict, size=_preset(preset).model.shape[-1])
        _check_shape(source, preset)
        return source

    def remarks(self, source: ImageSource) -> list[str]:
        """The pictures that could not be used, or the first few of them, and what else was noted."""
        return _remarks(source.problems, source.notes)

    def configure(self, source: ImageSource, preset: str | None) -> tuple[str, Preset]:
        """A preset by name; without one, the first whose networks take the data's shape.

        Its last map is the one that suits the data.
        """
        if preset is None:
            fitting = _fitting(source)
            if not fitting:
                raise InputError(
                    f"{source.name}: images of shape {source.shape} suit no preset ({', '.join(PRESETS)})"
                )
            preset = fitting[0]
        chosen = _preset(preset)
        _check_shape(source, preset)
        with seeded(0):
            last_map = best_last_map(source.sample(_JUDGED))
        generator = replace(chosen.model.generator, last_map=last_map)
        return preset, chosen._replace(model=replace(chosen.model, generator=generator))

    def device(self) -> torch.device:
        """The GPU where there is one."""
        return gpu_or_cpu()

    def float32_only(self, model: ImagesModel) -> str:
        """Critics with a perpendicular penalty: its norms come to hundreds of nats, so log densities would be off."""
        return "" if model.critic.penalty == "off" else "a critic with a penalty"

    def task(self, config: TrainConfig, source: ImageSource, world: World) -> ImagesTask:
        """Training on dequantised images."""
        return ImagesTask(config, source)

    def untrained(self, config: TrainConfig) -> DensityModel:
        """Networks of a config."""
        return DensityModel(*image_networks(config.model))

    def evaluate(
        self, trained: TrainedModel, source: ImageSource, options: EvaluateOptions, console: Console
    ) -> Report:
        """Likelihood, sample quality, outliers, log α, and samples in the order of their density."""
        model, config = trained.model.to(gpu_or_cpu()), trained.config
        usual = _FIRST_SAMPLES if options.first else _SAMPLES
        samples = usual if options.samples is None else options.samples
        if samples < _FEWEST_SAMPLES:
            raise InputError(f"--samples: want at least {_FEWEST_SAMPLES}, got {samples}")
        if options.refined and options.features is None:
            raise InputError("--refined: wants --features, which judge the images")
        if options.features is not None:
            real_images(source)  # which are refused now, not after minutes
        outliers = {str(path): _open_outliers(str(path), config.preset) for path in options.ood}
        for other in outliers.values():
            for remark in self.remarks(other):
                say(console, remark)
        name = options.features
        features = None if name is None else open_features(name, source, gpu_or_cpu())
        if not config.recipe.has_density:
            evaluation = evaluate_image_samples(model, source, config.seed, features, samples)
        else:
            light = options.first or config.model.critic.cap is not None
            annealing = _LIGHT_ANNEALING if light else _ANNEALING
            say(console, "the report: samples, scores, and log α by annealing; minutes on a CPU")
            with console.status("measuring"):
                evaluation = evaluate_images(
                    model,
                    source,
                    config.seed,
                    features,
                    outliers,
                    samples,
                    **annealing,
                    refined=options.refined,
                )
        evaluation.report["last_map"] = config.model.generator.last_map
        pictures = {"density.png": _drawn(evaluation)}
        return Report(evaluation.report, [image_report_table(evaluation.report)], pictures)

    def score(self, trained: TrainedModel, place: Path, console: Console) -> Rows:
        """Log density in nats, bits per dimension, and rank of every image: 1 is the densest."""
        shape, device = trained.config.model.shape, gpu_or_cpu()
        images = ImageStream(place, shape)
        log_prob = trained.model.to(device).log_prob
        with console.status("reading") as status:
            batches = _counted(images.parts(IMAGES_AT_A_TIME), lambda n: status.update(f"{n} images scored"))
            found = score_image_batches(log_prob, batches, device=device)
        for remark in _remarks(images.skipped, images.notes):
            say(console, remark)
        columns: dict[str, Sequence[Any] | np.ndarray] = {
            "name": images.names,
            "log_density": found.log_prob.numpy(),
            "bits_per_dim": found.bits_per_dim.numpy(),
            "rank": found.rank.numpy(),
        }
        return Rows(columns, {"log_density": ".3f", "bits_per_dim": ".5f"})

    def write_samples(
        self, trained: TrainedModel, n: int, refine: bool, seed: int, out: Path | None, note: str
    ) -> None:
        """Bytes, (n, C, H, W) uint8, or a picture, the densest first, with the log density above each."""
        if out is None:
            raise InputError("--out: want a .png or .npy file for images")
        device = gpu_or_cpu()
        model = trained.model.to(device)
        with seeded(seed, device), torch.no_grad():
            images = refine_images(model, n).images if refine else drawn_in_parts(model.sample, n)
        if out.suffix == ".npy":
            write_array(out, quantize(images).numpy())
        elif model.log_normalizer.isnan():
            grid_figure(out, images)
        else:
            with torch.no_grad():
                log_prob = in_parts(model.log_prob, images, device)
            sorted_figure(out, images, log_prob, note=note)


def _counted(batches: Iterable[Tensor], tell: Callable[[int], None]) -> Iterator[Tensor]:
    """The batches, telling of each how many came before it."""
    count = 0
    for batch in batches:
        tell(count)
        yield batch
        count += len(batch)


def _preset(name: str) -> Preset:
    if name not in PRESETS:
        raise InputError(f"--preset: want one of {', '.join(PRESETS)} for images, got {name!r}")
    return PRESETS[name]


def _open_suited(place: str, strict: bool) -> ImageSource:
    """Pictures of a folder in the largest size that a preset takes and that most of them have."""
    for side in _SIDES[:-1]:
        source = None
        with suppress(InputError):
            source = open_images(place, size=side)
        if source is not None and _fitting(source) and len(source.problems) <= len(source.split("train")):
            return open_images(place, strict, size=side) if strict and source.problems else source
    return open_images(place, strict, size=_SIDES[-1])


def _fitting(source: ImageSource) -> list[str]:
    return [name for name, preset in PRESETS.items() if preset.model.shape == source.shape]


def _open_outliers(place: str, preset: str) -> ImageSource:
    """Other images of the shape that a preset's networks take; gray ones get as many equal channels as it has."""
    channels, _, side = _preset(preset).model.shape
    found = read_images(place, size=side)
    if found.train.images.shape[1] == 1:
        test = None if found.test is None else _repeated(found.test, channels)
        found = replace(found, train=_repeated(found.train, channels), test=test)
    # Nothing learns from them, so all are as good as test images.
    source = ImageSource(place, replace(found, test=found.test or found.train), fewest=1)
    _check_shape(source, preset)
    return source


def _repeated(part: ImageSet, channels: int) -> ImageSet:
    return replace(part, images=part.images.expand(-1, channels, -1, -1))


def _check_shape(source: ImageSource, preset: str) -> None:
    shape, fitting = PRESETS[preset].model.shape, _fitting(source)
    if source.shape != shape:
        advice = f"; for these, {' or '.join(fitting)}" if fitting else ""
        raise InputError(f"{source.name}: {preset} wants images of shape {shape}, got {source.shape}{advice}")


def _remarks(problems: tuple[str, ...], notes: tuple[str, ...]) -> list[str]:
    named = [f"skipped {problem}" for problem in problems[:_NAMED]]
    return [*named, *([f"{len(problems)} pictures of no use were skipped"] if problems else []), *notes]


def _drawn(evaluation: ImageEvaluation) -> Any:
    images, log_prob = evaluation.samples[:_SHOWN], evaluation.log_prob[:_SHOWN]
    if not len(log_prob):
        return lambda path: grid_figure(path, images)
    verdict = Verdict.from_json(evaluation.report["log_normalizer"])
    note = "" if verdict.reliable else f"UNRELIABLE log α: {verdict.reason}"
    return lambda path: sorted_figure(path, images, log_prob, note=note)


KIND = ImagesKind()
