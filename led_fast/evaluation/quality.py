"""How much generated images look like real ones, by a named feature network."""

from typing import Any

import torch
from torch import Tensor

from led_fast.data.images import ImageSource, Split
from led_fast.evaluation.features import FeatureNetwork, extract_features
from led_fast.evaluation.frechet import frechet_distance

_SEED = 0


def sample_quality(
    generated: Tensor, source: ImageSource, features: FeatureNetwork, split: Split = "test"
) -> dict[str, Any]:
    """The Fréchet distance of generated images from test images, beside that of real ones.

    Both distances are between n images and the same n test images, so their bias from the size is the same:
    `distance` of the generated images, `distance_real` of training images. A generator is as good as this
    network and size can tell where the two are equal. n is the smallest of the numbers there are.

    Args:
        generated: (N, C, H, W) uint8.
        source: the data.
        features: measures the distance; distances by different networks cannot be compared.
        split: where the real images come from; what selects a model must not be `test`.

    Returns:
        `features`, `dimension`, `accuracy` (of a classifier, else None), `images` n, `distance`,
        `distance_real`.
    """
    train, test = source.split("train"), source.split(split)
    n = min(len(generated), len(train), len(test))
    order = torch.Generator("cpu").manual_seed(_SEED)
    train, test = (
        images[torch.randperm(len(images), generator=order, device="cpu")[:n]] for images in (train, test)
    )
    ours, real, reference = (extract_features(features, images) for images in (generated[:n], train, test))
    return {
        "features": features.name,
        "dimension": reference.shape[1],
        "accuracy": features.accuracy,
        "images": n,
        "distance": frechet_distance(ours, reference),
        "distance_real": frechet_distance(real, reference),
    }
