"""What a feature network is, and how it is applied."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from led_fast.errors import InputError

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
        InputError: the network fails on them, returns another shape, or features that are not finite.
    """
    try:
        out = torch.cat([features.network(batch).double().cpu() for batch in images.split(_BATCH)])
    except (RuntimeError, AttributeError) as error:  # a user's own network may do anything
        reason = str(error).strip().rpartition("\n")[2]
        shape = tuple(images.shape[1:])
        raise InputError(
            f"{features.name}: cannot be applied to images of shape {shape} ({reason})"
        ) from None
    if out.dim() != 2 or len(out) != len(images):
        raise InputError(
            f"{features.name}: want features of shape ({len(images)}, d) from {len(images)} images, got "
            f"{tuple(out.shape)}"
        )
    if not bool(out.isfinite().all()):
        raise InputError(f"{features.name}: features are not all finite")
    return out
