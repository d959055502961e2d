"""The report of a density on images: likelihood, sample quality, outliers, and how far log α can be believed."""

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from led_fast.data.images import LEVELS, ImageSource, quantize
from led_fast.density import DensityModel, Verdict, bits_per_dim, eval_mode, kl_gate
from led_fast.density.json_values import finite
from led_fast.density.normalizer import MIN_BATCHES
from led_fast.density.refinement import WeightsError
from led_fast.errors import InputError
from led_fast.evaluation.divergence import standard_error
from led_fast.evaluation.features import FeatureNetwork
from led_fast.evaluation.image_normalizer import ImageNormalizer, estimate_image_normalizer
from led_fast.evaluation.image_weights import stored_log_prob
from led_fast.evaluation.in_parts import IMAGES_AT_A_TIME, drawn_in_parts, in_parts
from led_fast.evaluation.outliers import ImageValues, constant_images, outlier_report
from led_fast.evaluation.quality import SampleJudge, real_images, sample_quality
from led_fast.evaluation.refined_images import refine_images
from led_fast.evaluation.schema import SCHEMA
from led_fast.flows import Slice
from led_fast.random_state import seeded
from led_fast.surroundings import usual

_ROUNDED = 1.0  # nats


@dataclass(frozen=True)
class ImageEvaluation:
    """A report of JSON values, and the images that it is about.

    Attributes:
        report: see `evaluate_images`.
        samples: the generator's, (n, C, H, W) float32.
        log_prob: their log density, (n,), in nats: the critic's, or a flow's own; empty where there is none.
    """

    report: dict[str, Any]
    samples: Tensor
    log_prob: Tensor


class ImageSampler(Protocol):
    """A model that draws images: a `DensityModel`, or any module that can."""

    def sample(self, n: int) -> Tensor:
        """Draws n images, (n, C, H, W), in [0, 1]."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """As a module's; the first one says where the model computes."""
        ...


class ImageFlow(ImageSampler, Protocol):
    """A model that draws images and knows their density exactly."""

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density of images, (B, C, H, W) -> (B,), in nats."""
        ...


@dataclass(frozen=True)
class _Draws:
    images: Tensor  # (n, C, H, W)
    log_q: Tensor  # (n,)
    log_weights: Tensor  # the critic's log density less log q, (n,)
    rounded: Tensor  # whether log q of what is stored is another than of what was drawn, (n,)


@usual()
@torch.no_grad()
def evaluate_images(
    model: DensityModel,
    source: ImageSource,
    seed: int,
    features: FeatureNetwork | None = None,
    outliers: Mapping[str, ImageSource] | None = None,
    samples: int = 10_000,
    temperatures: int = 200,
    chains: int = 200,
    refined: bool = False,
) -> ImageEvaluation:
    """Evaluates a density of images.

    The report holds:

    - `bits_per_dim` of `held_out_images` test images with its standard error, beside that of the uniform
      density, 8; `bits_per_dim_train` of as many training images; `bits_per_dim_generator` of the test images
      under the generator's own density, which needs no log α (an upper bound where the generator drops coordinates,
      see `led_fast.flows.OneWayFlow.log_prob_bound`; None where it has neither), and `gain`, the bits that the
      critic saves of them (a bound, likewise), with the standard error of the difference image by image and of
      log α, by which all images are off alike.
    - `bits_per_pixel`: the unit of the paper's b/p, see `bits_per_pixel`; for test images, for samples under
      the generator and under the critic, and for the uniform density.
    - `log_normalizer`: the estimates of log α (`generator`, `base`, `pixels`, `annealed`) with their diagnostics,
      see `estimate_image_normalizer`; `used`, the value in all densities here: the model's own, or where it has
      none the best estimate; and whether that is `reliable`, see `ImageNormalizer.verdict`.
    - `samples_rounded`: share of the samples whose log density as float32 has stored them differs by more than a nat
      from that of what was drawn; None where the generator cannot be inverted. `log_q_error`: the median of that
      difference, see `led_fast.evaluation.image_weights.log_q_error`; beyond .1 nats, or 10⁻⁴ a value, log α is not
      `reliable`.
    - `kl_generator_model`, KL(q ‖ p) in nats, and `kl_gate`; `generator_density` says whether log q is exact,
      or a surrogate because the generator drops coordinates.
    - `quality`: see `SampleJudge`; None without `features`. `quality_refined`: of as many images of the density itself,
      see `refine_images`: their `distance`, `distance_resampled` before Langevin `transitions`, the `acceptance` of
      these, and the `ess_fraction` of the draws; None unless both are asked for, and where importance weights are
      not finite.
    - `outliers`: for uniform noise, constant images and each other source the share of pairs in which a test image
      is denser than an outlier (`auroc`; below ½ the outliers are denser), and in which it scores higher by
      what else a density has to say: `auroc_typicality`, `auroc_tilt` and `auroc_ratio`, see
      `led_fast.evaluation.outliers.ImageValues`.

    Args:
        model: a density of images in [0, 1].
        source: its data.
        seed: of every draw made here.
        features: the network that judges the samples.
        outliers: other images by name, of the same shape.
        samples: number of generated images and of weights, and the most held-out images.
        temperatures: of the annealing, see `estimate_image_normalizer`.
        chains: of the annealing.
        refined: judge refined images, too.

    Raises:
        InputError: outliers of another shape, or with features a single test image.
    """
    outliers = outliers or {}
    if features is not None:
        real_images(source)  # which are refused now, not after minutes
    for name, other in outliers.items():
        if other.shape != source.shape:
            raise InputError(f"{name}: want images of shape {source.shape}, got {other.shape}")
    device = next(model.parameters()).device
    with seeded(seed, device), eval_mode(model):
        held_out, train = source.held_out(samples), source.sample(min(samples, len(source.split("test"))))
        draws = _draw(model, samples)
        normalizer = estimate_image_normalizer(model, source, samples, temperatures, chains)
        test = ImageValues.of(model, held_out)
        trained = in_parts(model.unnormalized_log_prob, train, device).double()
        typical = trained.mean().item()

        def told_from(others: Tensor) -> dict[str, float | int | None]:
            return outlier_report(test, typical, ImageValues.of(model, others))

        odd = {  # one set in memory at a time
            "uniform noise": told_from(torch.rand_like(held_out)),
            "constant images": told_from(constant_images(len(held_out), source.shape)),
            **{name: told_from(other.held_out(samples)) for name, other in outliers.items()},
        }
        quality = _quality(model, source, features, draws.images, refined)
    log_alpha, half_width = _used(model, normalizer)
    gate = kl_gate(draws.log_weights, log_alpha, half_width)
    dims, pixels = math.prod(source.shape), math.prod(source.shape[1:])
    log_prob, log_prob_train = test.log_n - log_alpha, trained - log_alpha
    gain = None if test.ratio is None else (test.ratio - log_alpha) / (dims * math.log(2))
    verdict = normalizer.verdict(log_alpha)
    log_alpha_error = _standard_error(verdict) / (dims * math.log(2))
    sample_log_prob = draws.log_q + draws.log_weights - log_alpha
    sliced = any(isinstance(module, Slice) for module in model.generator.modules())
    report = {
        "schema": SCHEMA,
        "held_out_images": len(held_out),
        "bits_per_dim": bits_per_dim(log_prob.mean().item(), dims, LEVELS),
        "bits_per_dim_standard_error": standard_error(log_prob) / (dims * math.log(2)),
        "bits_per_dim_train": bits_per_dim(log_prob_train.mean().item(), dims, LEVELS),
        "bits_per_dim_generator": (
            None if test.log_q is None else bits_per_dim(test.log_q.mean().item(), dims, LEVELS)
        ),
        "gain": None if gain is None else gain.mean().item(),
        "gain_standard_error": None if gain is None else math.hypot(standard_error(gain), log_alpha_error),
        "bits_per_dim_uniform": bits_per_dim(0.0, dims, LEVELS),
        "bits_per_pixel": {
            "test": bits_per_pixel(log_prob.mean().item(), dims, pixels),
            "samples_generator": bits_per_pixel(draws.log_q.mean().item(), dims, pixels),
            "samples_critic": bits_per_pixel(sample_log_prob.mean().item(), dims, pixels),
            "uniform": bits_per_pixel(0.0, dims, pixels),
        },
        "log_normalizer": verdict.to_json(),
        "generator_density": "surrogate" if sliced else "exact",
        "samples_rounded": draws.rounded.double().mean().item() if model.generator.invertible else None,
        "log_q_error": normalizer.log_q_error,
        "kl_generator_model": gate.kl,
        "kl_gate": gate._asdict(),
        **quality,
        "outliers": odd,
    }
    return ImageEvaluation(finite(report), draws.images, sample_log_prob)


@usual()
@torch.no_grad()
def evaluate_image_samples(
    model: ImageSampler,
    source: ImageSource,
    seed: int,
    features: FeatureNetwork | None = None,
    samples: int = 10_000,
) -> ImageEvaluation:
    """Evaluates a generator alone, such as a plain GAN's: `quality` as in `evaluate_images`, nothing else.

    Raises:
        ValueError: pixels are NaN, which bytes would take for black.
    """
    device = next(model.parameters()).device
    with seeded(seed, device), eval_mode(model):
        images = drawn_in_parts(model.sample, samples)
    if broken := int(images.isnan().flatten(1).any(dim=1).sum()):
        raise ValueError(
            f"evaluate_image_samples: model must draw numbers, got NaN in {broken} of {len(images)} images"
        )
    quality = None if features is None else sample_quality(quantize(images), source, features)
    return ImageEvaluation(
        finite({"schema": SCHEMA, "quality": quality, "outliers": {}}), images, torch.empty(0, device="cpu")
    )


@torch.no_grad()
def evaluate_image_flow(
    flow: ImageFlow,
    source: ImageSource,
    seed: int,
    features: FeatureNetwork | None = None,
    samples: int = 10_000,
) -> ImageEvaluation:
    """Evaluates a flow whose density is exact: what `evaluate_images` reports of a generator, without a critic."""
    found = evaluate_image_samples(flow, source, seed, features, samples)
    with seeded(seed):
        held_out = source.held_out(samples)
    dims, pixels = math.prod(source.shape), math.prod(source.shape[1:])
    device = next(flow.parameters()).device
    with eval_mode(flow):
        test, drawn = (in_parts(flow.log_prob, x, device).double() for x in (held_out, found.samples))
    report = {
        "held_out_images": len(held_out),
        "bits_per_dim_generator": bits_per_dim(test.mean().item(), dims, LEVELS),
        "bits_per_pixel": {
            "test": bits_per_pixel(test.mean().item(), dims, pixels),
            "samples_generator": bits_per_pixel(drawn.mean().item(), dims, pixels),
        },
    }
    return replace(found, report={**found.report, **finite(report)}, log_prob=drawn)


def bits_per_pixel(log_prob: float, dims: int, pixels: int) -> float:
    """The paper's b/p: bits per pixel, all channels together, of the density of images scaled to [-1, 1].

    Without the offset of discrete data: the uniform density has one bit per channel. (The paper does not state
    the scale; the 1.00 of its MNIST generator is the uniform density on [-1, 1].)

    Args:
        log_prob: mean log density of images in [0, 1], in nats.
        dims: C H W.
        pixels: H W.

    Example:
        >>> from led_fast.evaluation import bits_per_pixel
        >>> bits_per_pixel(0.0, dims=3072, pixels=1024)  # the uniform density, 1 a value
        3.0
    """
    return bits_per_dim(log_prob - dims * math.log(2), pixels, levels=1)


def _draw(model: DensityModel, samples: int) -> _Draws:
    batches = max(MIN_BATCHES, -(-samples // IMAGES_AT_A_TIME))
    generator, net = model.generator, model.own_tilt()
    images, log_q, log_weights, rounded = [], [], [], []
    for _ in range(batches):
        y, drawn = generator.rsample_and_log_prob(-(-samples // batches))
        density = stored_log_prob(generator, y, drawn).double()
        rounded.append(~((density - drawn).abs() < _ROUNDED).cpu())
        weights = net(y).double() if net else model.unnormalized_log_prob(y).double() - density
        images.append(y.cpu())
        log_q.append(drawn.double().cpu())  # because of an image far out float32 stores another
        log_weights.append(weights.cpu())
    return _Draws(*map(torch.cat, (images, log_q, log_weights, rounded)))


def _quality(
    model: DensityModel, source: ImageSource, features: FeatureNetwork | None, images: Tensor, refined: bool
) -> dict[str, Any]:
    """The report's `quality` and `quality_refined`."""
    if features is None:
        return {"quality": None, "quality_refined": None}
    judge = SampleJudge(source, features)
    found: dict[str, Any] = {"quality": judge(quantize(images)), "quality_refined": None}
    if refined:
        with suppress(WeightsError):  # one weight is no reason to lose the rest of the report
            made = refine_images(model, len(images))
            found["quality_refined"] = {
                "distance": judge(quantize(made.images))["distance"],
                "distance_resampled": judge(quantize(made.resampled))["distance"],
                "transitions": made.transitions,
                "acceptance": made.acceptance,
                "ess_fraction": made.ess_fraction,
            }
    return found


def _used(model: DensityModel, normalizer: ImageNormalizer) -> tuple[float, float]:
    """The log α in use, and the half-width of its confidence interval.

    The model's own was estimated as well: the best estimate's half-width stands in for its own, if that is reliable.
    It is that before the verdict widens the interval, because a value that is far off is not to excuse itself.
    """
    best = normalizer.best
    half_width = normalizer.interval[1] - best.value
    if model.log_normalizer.isnan():
        return best.value, half_width
    return model.log_normalizer.item(), half_width if best.reliable else 0.0


def _standard_error(verdict: Verdict) -> float:
    """Of the log α in use, in nats: the farther end of its 95 % interval is 1.96 of them away."""
    low, high = verdict.interval
    return max(verdict.value - low, high - verdict.value) / 1.96
