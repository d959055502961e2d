"""Log densities of single images, to find the likely and the strange among them."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from led_fast.data.images import LEVELS, ImageCollection, dequantize
from led_fast.density import bits_per_dim
from led_fast.errors import InputError
from led_fast.evaluation.image_normalizer import IMAGES_AT_A_TIME
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


@usual()
@torch.no_grad()
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
    values: list[Tensor] = []
    with seeded(seed, device):
        for title, part in parts:
            if tuple(part.images.shape[1:]) != shape:
                raise InputError(f"want images of shape {shape}, got {tuple(part.images.shape[1:])}")
            names += part.names or [f"{title}[{i}]" for i in range(len(part.images))]
            for chunk in part.images.split(IMAGES_AT_A_TIME):
                values.append(log_prob(dequantize(chunk).to(device)).double().cpu())
    log_probs = torch.cat(values)
    ranks = torch.empty_like(log_probs, dtype=torch.int64)
    ranks[log_probs.argsort(descending=True, stable=True)] = torch.arange(1, len(log_probs) + 1, device="cpu")
    dims = math.prod(shape)
    return [
        ImageScore(name, value, bits_per_dim(value, dims, LEVELS), rank)
        for name, value, rank in zip(names, log_probs.tolist(), ranks.tolist(), strict=True)
    ]
