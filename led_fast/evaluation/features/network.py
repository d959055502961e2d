"""What a feature network is, and how it is applied."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_BATCH = 250


@dataclass(frozen=True)
class FeatureNetwork:
    """A network with the name that every distance measured by it is reported under.

    Attributes:
        name: says which network, trained on what.
        network: (B, C, H, W) uint8 -> (B, d) floating point.
        accuracy: share of test images that it classifies right, where it was trained on the data's labels.
    """

    name: str
    network: Callable[[Tensor], Tensor]
    accuracy: float | None = None


@torch.no_grad()
def extract_features(features: FeatureNetwork, images: Tensor) -> Tensor:
    """The features of images, (N, C, H, W) uint8 -> (N, d) float64, on the CPU.

    Raises:
        ValueError: the network returns another shape, or features that are not finite.
    """
    out = torch.cat([features.network(batch).double().cpu() for batch in images.split(_BATCH)])
    if out.dim() != 2 or len(out) != len(images):
        raise ValueError(
            f"{features.name}: want features of shape ({len(images)}, d) from {len(images)} images, got "
            f"{tuple(out.shape)}"
        )
    if not bool(out.isfinite().all()):
        raise ValueError(f"{features.name}: features are not all finite")
    return out
