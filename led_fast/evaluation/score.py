"""Log densities of single images, to find the likely and the strange among them."""

import math
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from led_fast.data.images import LEVELS, ImageCollection, dequantize
from led_fast.density import bits_per_dim
from led_fast.errors import InputError
from led_fast.evaluation.in_parts import IMAGES_AT_A_TIME
from led_fast.random_state import seeded
from led_fast.surroundings import usual


@dataclass(frozen=True)
class ImageScore:
    """One image's density.

    Attributes:
        name: its file, or `train[i]` or `test[i]` where a file holds many.
        log_prob: in nats.
        bits_per_dim: the same in bits per dimension, see `led_fast.density.bits_per_dim`.
        rank: 1 for the densest; the last is the strangest.
    """

    name: str
    log_prob: float
    bits_per_dim: float
    rank: int


@dataclass(frozen=True)
class ImageDensities:
    """Densities of images, in their own order.

    Attributes:
        log_prob: in nats, (n,) float64.
        bits_per_dim: the same in bits per dimension, see `led_fast.density.bits_per_dim`; (n,) float64.
        rank: 1 for the densest; the last is the strangest, or one of those without a number; (n,) int64.
    """

    log_prob: Tensor
    bits_per_dim: Tensor
    rank: Tensor


@usual()
def score_images(
    log_prob: Callable[[Tensor], Tensor],
    images: ImageCollection,
    shape: tuple[int, int, int],
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> list[ImageScore]:
    """Scores images, in their own order.

    Args:
        log_prob: of dequantised images, (B, C, H, W) in [0, 1] -> (B,), in nats.
        images: from `led_fast.data.images.read_images`.
        shape: (C, H, W) that `log_prob` takes.
        seed: of the dequantisation's noise.
        device: where `log_prob` computes.

    Raises:
        InputError: images of another shape.
    """
    parts = [("train", images.train)] + ([] if images.test is None else [("test", images.test)])
    names: list[str] = []
    for title, part in parts:
        if tuple(part.images.shape[1:]) != shape:
            raise InputError(f"{title} images: want shape {shape}, got {tuple(part.images.shape[1:])}")
        names += part.names or [f"{title}[{i}]" for i in range(len(part.images))]
    batches = (batch for _, part in parts for batch in part.images.split(IMAGES_AT_A_TIME))
    found = score_image_batches(log_prob, batches, seed, device)
    columns = (found.log_prob.tolist(), found.bits_per_dim.tolist(), found.rank.tolist())
    return [ImageScore(*row) for row in zip(names, *columns, strict=True)]


@usual()
@torch.no_grad()
def score_image_batches(
    log_prob: Callable[[Tensor], Tensor],
    batches: Iterable[Tensor],
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> ImageDensities:
    """Scores images that come in batches, no two of which need be in memory: what stays is 24 bytes an image.

    Args:
        log_prob: of dequantised images, (B, C, H, W) in [0, 1] -> (B,), in nats.
        batches: (B, C, H, W) uint8, e.g. from `led_fast.data.images.ImageStream.parts`.
        seed: of the dequantisation's noise.
        device: where `log_prob` computes.

    Example:
        >>> import torch
        >>> from led_fast.evaluation import score_image_batches
        >>> batches = [torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.full((2, 1, 2, 2), 255, dtype=torch.uint8)]
        >>> score_image_batches(lambda x: x.flatten(1).sum(1), batches).rank.max()
        tensor(5)
    """
    log_probs, dims = array("d"), 1
    with seeded(seed, device):
        for batch in batches:
            dims = math.prod(batch.shape[1:])
            log_probs.extend(log_prob(dequantize(batch).to(device)).double().tolist())
    values = torch.from_numpy(np.array(log_probs))
    ranks = torch.empty_like(values, dtype=torch.int64)
    # NaN last.
    ranks[(-values).argsort(stable=True)] = torch.arange(1, len(values) + 1, device="cpu")
    return ImageDensities(values, bits_per_dim(values, dims, LEVELS), ranks)
