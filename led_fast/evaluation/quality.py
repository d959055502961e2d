"""How much generated images look like real ones, by a named feature network."""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from led_fast.data.images import ImageSource, Split
from led_fast.errors import InputError
from led_fast.evaluation.features import FeatureNetwork, extract_features
from led_fast.evaluation.frechet import frechet_distance

_SEED = 0
_FEWEST = 2  # images, which have a covariance


class SampleJudge:
    """The Fréchet distance of generated images from test images, beside that of real ones.

    Both distances are between n images and the same n test images, so their bias from the size is the same:
    `distance` of the generated images, `distance_real` of training images. A generator is as good as this
    network and size can tell where the two are equal. n is the smallest of the numbers there are.

    Args:
        source: the data.
        features: measures the distance; distances by different networks cannot be compared.
        split: where the real images come from; what selects a model must not be `test`.

    Raises:
        InputError: see `real_images`.
    """

    def __init__(self, source: ImageSource, features: FeatureNetwork, split: Split = "test") -> None:
        self.features = features
        self._train, self._test = real_images(source, split)
        self._real = cache(self._features_of_real)

    def __call__(self, generated: Tensor) -> dict[str, Any]:
        """Judges images (N, C, H, W) uint8.

        Returns:
            `features`, `dimension`, `accuracy` (of a classifier, else None), `images` n, `distance`,
            `distance_real`.

        Raises:
            ValueError: there is but one image.
        """
        if len(generated) < _FEWEST:
            raise ValueError(
                f"SampleJudge: generated must be at least {_FEWEST} images, got {len(generated)}"
            )
        n = min(len(generated), len(self._train), len(self._test))
        ours = extract_features(self.features, generated[:n])
        real, reference = self._real(n)
        return {
            "features": self.features.name,
            "dimension": reference.shape[1],
            "accuracy": self.features.accuracy,
            "images": n,
            "distance": frechet_distance(ours, reference),
            "distance_real": frechet_distance(real, reference),
        }

    def _features_of_real(self, n: int) -> tuple[Tensor, Tensor]:
        """Those of n training images and of n others."""
        order = torch.Generator("cpu").manual_seed(_SEED)
        train, test = (
            images[torch.randperm(len(images), generator=order, device="cpu")[:n]]
            for images in (self._train, self._test)
        )
        return extract_features(self.features, train), extract_features(self.features, test)


def real_images(source: ImageSource, split: Split = "test") -> tuple[Tensor, Tensor]:
    """The training images and those of a split, by which others are judged, (N, C, H, W) uint8 each.

    Raises:
        InputError: there is but one of a split.
    """
    train, other = source.split("train"), source.split(split)
    if len(other) < _FEWEST:  # of training images there are more
        raise InputError(
            f"{source.name}: want at least {_FEWEST} {split} images for a Fréchet distance, got {len(other)}"
        )
    return train, other


def sample_quality(
    generated: Tensor, source: ImageSource, features: FeatureNetwork, split: Split = "test"
) -> dict[str, Any]:
    """The Fréchet distance of generated images from test images, beside that of real ones; see `SampleJudge`.

    Args:
        generated: (N, C, H, W) uint8.
        source: the data.
        features: measures the distance; distances by different networks cannot be compared.
        split: where the real images come from; what selects a model must not be `test`.

    Returns:
        What `SampleJudge` returns.
    """
    return SampleJudge(source, features, split)(generated)
