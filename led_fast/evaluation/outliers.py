"""How well the scores of a density tell other images from its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from led_fast.data.images import LEVELS, dequantize
from led_fast.density import DensityModel
from led_fast.evaluation.auroc import auroc
from led_fast.evaluation.in_parts import in_parts
from led_fast.models import ImageCritic


class ImageValues(NamedTuple):
    """What a density has to say of n images, (n,) each, float64, in nats.

    Attributes:
        log_n: the critic's log N.
        log_q: the generator's log density, or a bound of it; None where it has neither.
        tilt: the critic's net alone, without the density that it tilts; None where it tilts none.
        ratio: log N - log q, by itself where the critic tilts the generator as it is; None where neither is known.
    """

    log_n: Tensor
    log_q: Tensor | None
    tilt: Tensor | None
    ratio: Tensor | None

    @classmethod
    def of(cls, model: DensityModel, images: Tensor) -> ImageValues:
        """Those of images (n, C, H, W)."""
        device = next(model.parameters()).device

        def values(function: Callable[[Tensor], Tensor]) -> Tensor:
            return in_parts(function, images, device).double()

        generator, critic = model.generator, model.critic
        log_n = values(model.unnormalized_log_prob)
        log_q = values(generator.log_prob_bound) if generator.has_bound else None
        tilt = values(critic.discriminate) if isinstance(critic, ImageCritic) else None
        if own := model.own_tilt():
            return cls(log_n, log_q, tilt, values(own) if tilt is None else tilt)
        return cls(log_n, log_q, tilt, None if log_q is None else log_n - log_q)

    def scores(self, typical_log_n: float) -> dict[str, Tensor]:
        """Scores that are to be low where images are odd, by the report's names, (n,) each.

        Args:
            typical_log_n: mean log N of training images. An image may be odd by being denser than they are
                (Nalisnick et al. 2019, "Detecting Out-of-Distribution Inputs to Deep Generative Models Using
                Typicality"; Theis et al. 2016).
        """
        found: dict[str, Tensor] = {
            "auroc": self.log_n,
            "auroc_typicality": -(self.log_n - typical_log_n).abs(),
        }
        if self.tilt is not None:
            found["auroc_tilt"] = self.tilt
        if self.ratio is not None:
            found["auroc_ratio"] = self.ratio
        return found


def outlier_report(
    test: ImageValues, typical_log_n: float, other: ImageValues
) -> dict[str, float | int | None]:
    """How well each of `ImageValues.scores` tells other images from test images: its AUROC, and `images`.

    None where a score is NaN.
    """
    of_test, of_other = test.scores(typical_log_n), other.scores(typical_log_n)
    found: dict[str, float | int | None] = {"images": len(other.log_n)}
    for name, inside in of_test.items():
        undefined = bool(inside.isnan().any() | of_other[name].isnan().any())
        found[name] = None if undefined else auroc(inside, of_other[name])
    return found


def constant_images(n: int, shape: tuple[int, int, int]) -> Tensor:
    """Images of one grey level each, drawn evenly from all of them, dequantised: (n, *shape) float32 in (0, 1).

    Densities of pixels find most of them too likely: each pixel is what its neighbours say.
    """
    levels = torch.randint(LEVELS, (n, 1, 1, 1), device="cpu").to(torch.uint8)
    return dequantize(levels.expand(n, *shape))
