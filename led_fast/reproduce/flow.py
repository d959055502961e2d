"""The baseline with an exact density: a neural spline flow (Durkan et al. 2019), by maximum likelihood."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim import Adam
from torch.optim.lr_scheduler import CosineAnnealingLR

from led_fast.random_state import seeded
from led_fast.reproduce.quality import DRAWN, density_quality, mixture_source, sample_quality

_BATCH = 256
_GRADIENT_CLIP = 10.0
_DECAY_TO = 0.02


def available() -> bool:
    """Whether zuko, which has the flow, is installed (`pip install "led_fast[flow]"`)."""
    return find_spec("zuko") is not None


def train_flow(
    folder: Path,
    data: str,
    seed: int,
    steps: int,
    learning_rate: float,
    transforms: int,
    width: int,
    bins: int,
) -> dict[str, Any]:
    """Fits the flow to fresh data by maximum likelihood; writes `samples.npy`.

    Args:
        folder: for the samples.
        data: `ring` or `grid`.
        seed: of weights, data and noise.
        steps: of Adam, 256 points each; the rate falls by half a cosine.
        learning_rate: the first one.
        transforms: number of autoregressive spline layers.
        width: hidden units of each of the two layers of their networks.
        bins: of every spline.
    """
    import zuko

    source, truth = mixture_source(data)
    with seeded(seed):
        flow = zuko.flows.NSF(features=2, transforms=transforms, hidden_features=(width, width), bins=bins)
        optimizer = Adam(flow.parameters(), learning_rate)
        schedule = CosineAnnealingLR(optimizer, steps, _DECAY_TO * learning_rate)
        for _ in range(steps):
            x = ((source.sample(_BATCH) - source.shift) / source.scale).float()
            optimizer.zero_grad()
            (-flow().log_prob(x).mean()).backward()
            torch.nn.utils.clip_grad_norm_(flow.parameters(), _GRADIENT_CLIP)
            optimizer.step()
            schedule.step()

        def log_prob(x: torch.Tensor) -> torch.Tensor:
            standardized = ((x - source.shift) / source.scale).float()
            return flow().log_prob(standardized) - source.scale.log().sum()

        with torch.no_grad():
            samples = source.shift + source.scale * flow().sample((DRAWN,))
        density = density_quality(log_prob, truth)
    np.save(folder / "samples.npy", samples[:2500].float().numpy())
    # The sampler and the density are one: their divergence is zero by construction.
    return {"steps": steps, **sample_quality(samples, truth), **density, "kl_generator_model": 0.0}
