"""Log α of a critic of images, by several estimates, some of which do not share their blind spots."""

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from led_fast.data.images import ImageSource
from led_fast.density import (
    AnnealedEstimate,
    AnnealingError,
    BoundedEstimate,
    DensityModel,
    NormalizerEstimate,
    Verdict,
    Witness,
    annealed_log_normalizer,
    estimate_log_normalizer,
    eval_mode,
    judge,
    summarize_bounded_log_weights,
    summarize_log_weights,
)
from led_fast.density.latent import latent_bijection
from led_fast.density.normalizer import MIN_BATCHES
from led_fast.evaluation.image_weights import StoredImages, log_q_error, tilted_noise
from led_fast.evaluation.in_parts import IMAGES_AT_A_TIME
from led_fast.flows import (
    DiagonalNormal,
    OneWayFlow,
    Sigmoid,
)
from led_fast.flows.elementwise import LastMap
from led_fast.models import ImageCritic
from led_fast.models.cap import least_upper_bound

_FITTED = 5000  # images
_LEAST_SCALE = 0.5  # of a pixel before the last map
_BLIND_TO = {
    "generator": "where the flow never draws",
    "base": "where the flow never draws",
    "pixels": "where independent pixels never are",
    "annealed": "where chains from the start never get",
}
# Nats: two standard errors, at the most that is called reliable, because the value in use is an estimate like others,
# and no interval of it may be known. In the plane the tolerance is 0: there .1 is a mode of a tenth of the mass, which
# two intervals and quadrature tell, and on images the same is nothing beside what pixels' float32 rounds.
_TOLERANCE = 0.1
# Draws of what a capped net tilts, at least: weights of up to e⁵ beside α = 1 may hide .14 nats from 5,000, and .04
# from these.
_CAPPED_SAMPLES = 20_000
_COMPARED = 1000  # samples, at most, whose log q is computed anew
# Nats a value of an image, by which that may differ: close to white, float32 stores pixels so coarsely that the median
# is half a nat of 12,288 values.
_ROUNDING = 1e-4
_CHAINS_AT_A_TIME = 100  # with all that their gradients need in memory


@dataclass(frozen=True)
class ImageNormalizer:
    """Estimates of log α; each is low rather than high: where they differ, the high ones are right.

    Attributes:
        generator: by importance sampling from the generator; from the net alone where the critic tilts its density.
        base: by importance sampling from the density that the critic tilts, from the net alone; None where it tilts
            none, or the generator's as it is.
        pixels: by importance sampling from independent pixels, see `pixel_proposal`.
        annealed: by annealed importance sampling, see `estimate_image_normalizer`; None where it was not asked for
            or did not reach the critic's density.
        log_q_error: see `led_fast.evaluation.image_weights.log_q_error`.
        values: of an image, C·H·W.
    """

    generator: NormalizerEstimate
    base: NormalizerEstimate | None
    pixels: NormalizerEstimate
    annealed: AnnealedEstimate | None
    log_q_error: float | None = None
    values: int = 1

    @property
    def estimates(self) -> dict[str, NormalizerEstimate]:
        """The estimates that there are, by name."""
        found = {
            "generator": self.generator,
            "base": self.base,
            "pixels": self.pixels,
            "annealed": self.annealed,
        }
        return {name: estimate for name, estimate in found.items() if estimate is not None}

    @property
    def best(self) -> NormalizerEstimate:
        """Of the reliable ones, or of all where none is, the one whose interval begins highest."""
        found = self.estimates.values()
        reliable = [estimate for estimate in found if estimate.reliable]
        return max(reliable or found, key=lambda e: (_lowest(e.ci95[0]), _lowest(e.value)))

    @property
    def interval(self) -> tuple[float, float]:
        """The best estimate's 95 % interval; where a bound of its weights decides, that one, for any number of them."""
        best = self.best
        return best.bound95 if isinstance(best, BoundedEstimate) else best.ci95

    def verdict(self, used: float | None = None) -> Verdict:
        """The verdict on a log α in use; without one, on the best estimate's.

        Its interval is the best estimate's, widened until it holds the value: that comes from other draws, and its
        error is its own. A log q that is not that of the draws makes it unreliable, whatever the estimates say.
        """
        value = self.best.value if used is None else used
        low, high = self.interval
        witnesses = {name: _witness(name, estimate) for name, estimate in self.estimates.items()}
        verdict = judge(value, witnesses, (min(low, value), max(high, value)), _TOLERANCE)
        error = self.log_q_error
        if error is None or abs(error) <= max(_TOLERANCE, _ROUNDING * self.values):
            return verdict
        objection = (
            f"log q of samples, as float32 stores them, differs by {error:+.2f} nats from that of their draws"
        )
        return replace(verdict, reliable=False, reason="; ".join(filter(None, [verdict.reason, objection])))


def estimate_image_normalizer(
    model: DensityModel,
    source: ImageSource,
    samples: int = 10_000,
    temperatures: int = 200,
    chains: int = 200,
) -> ImageNormalizer:
    """Estimates log α of a model's critic in several ways.

    Where a critic tilts a generator, that one is the best proposal, because the weights are those of the tilt
    alone; as it is now, if a calibration was the last stage, or as it once was. Where the tilt is capped, a
    bound of its weights may decide without another witness, see `estimate_bounded_log_normalizer`. The weights
    of a generator that was not tilted seldom suffice at a thousand dimensions and more: log q would have to
    follow the critic within a nat or so. Annealing moves the samples towards the critic's density, in the
    latent coordinates of the generator (see `latent_bijection`), or where it has none, from independent pixels.
    It needs `temperatures` x `chains` evaluations of the gradient of generator and critic.

    Args:
        model: of images in [0, 1].
        source: its data, to which the pixels are fitted.
        samples: of each proposal; 20,000 at least of the density that a capped critic tilts.
        temperatures: of the annealing; 0: none.
        chains: of the annealing. With fewer than 50 it is not called reliable.
    """
    critic = model.critic if isinstance(model.critic, ImageCritic) else None
    last_map = Sigmoid() if critic is None else critic.last_map
    device = next(model.parameters()).device
    pixels = pixel_proposal(source.sample(_FITTED).to(device), last_map)
    batches = max(MIN_BATCHES, -(-samples // IMAGES_AT_A_TIME))

    def by(flow: OneWayFlow) -> NormalizerEstimate:
        return estimate_log_normalizer(model.critic, StoredImages(flow), samples, batches)

    with eval_mode(model), torch.no_grad():
        by_pixels, by_base = by(pixels), None
        cap = None if critic is None else critic.config.cap
        if own := model.own_tilt():
            by_generator = _by_net(own, cap, model.generator, samples)
        else:
            by_generator = by(model.generator)
            if critic is not None and critic.tilted is not None:
                by_base = _by_net(critic.discriminate, cap, critic.tilted, samples)
        annealed = _annealed(model, pixels, temperatures, chains) if temperatures else None
        error = log_q_error(model, min(samples, _COMPARED))
    return ImageNormalizer(by_generator, by_base, by_pixels, annealed, error, math.prod(source.shape))


def _annealed(
    model: DensityModel, pixels: OneWayFlow, temperatures: int, chains: int
) -> AnnealedEstimate | None:
    """None where the critic's density was not reached."""
    tilted = tilted_noise(model)
    start = latent_bijection(model.generator) or pixels
    target, start = (model.critic, start) if tilted is None else (tilted, tilted.noise)
    with contextlib.suppress(AnnealingError):
        return annealed_log_normalizer(
            target, start, None, temperatures, chains, at_a_time=_CHAINS_AT_A_TIME
        ).forward
    return None


def _by_net(
    net: Callable[[Tensor], Tensor], cap: float | None, flow: OneWayFlow, samples: int
) -> NormalizerEstimate:
    """By samples of the flow whose density a critic tilts, from the net alone.

    Where the net is capped, by its bound; but if that is too wide, as if there were none.
    """
    if cap is not None:
        samples = max(samples, _CAPPED_SAMPLES)
    batches = max(MIN_BATCHES, -(-samples // IMAGES_AT_A_TIME))
    draws = [net(flow.sample(-(-samples // batches))) for _ in range(batches)]
    log_weights = torch.stack(draws)
    if cap is not None:
        bounded = summarize_bounded_log_weights(log_weights, least_upper_bound(cap))
        if bounded.reliable:
            return bounded
    return summarize_log_weights(log_weights)


def _witness(name: str, estimate: NormalizerEstimate) -> Witness:
    if isinstance(estimate, BoundedEstimate):
        return Witness(estimate, "nothing: the density that is tilted reaches everywhere", "bounded")
    return Witness(estimate, _BLIND_TO[name])


def _lowest(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def pixel_proposal(images: Tensor, last_map: LastMap) -> OneWayFlow:
    """Independent pixels, normal before a last map, with the mean and the standard deviation of those of images.

    Args:
        images: (n, C, H, W) in (0, 1).
        last_map: into the box, the one that a critic looks through.
    """
    with torch.no_grad():
        t, _ = last_map.by_elements(images.double())
    scale = t.std(0).clamp(min=_LEAST_SCALE)
    return OneWayFlow(DiagonalNormal(t.mean(0).float(), scale.float()), [last_map])
