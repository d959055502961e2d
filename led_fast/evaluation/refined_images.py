"""Images of a density itself, made of its generator's."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from led_fast.density import DensityModel, eval_mode
from led_fast.density.annealing import AnnealingPath
from led_fast.density.latent import latent_bijection
from led_fast.density.proposals import OwnMeasure, Proposal
from led_fast.density.refinement import langevin, langevin_step_size, resample
from led_fast.evaluation.image_weights import StoredImages, tilted_noise
from led_fast.evaluation.in_parts import IMAGES_AT_A_TIME
from led_fast.surroundings import usual


class RefinedImages(NamedTuple):
    """Images that follow a critic's density, as far as its generator covers it, on the CPU.

    Attributes:
        images: (n, C, H, W).
        resampled: the same before the Langevin transitions, (n, C, H, W).
        ess_fraction: effective share of the draws that they were chosen from.
        transitions: of each image.
        acceptance: of the transitions; NaN where there were none.
    """

    images: Tensor
    resampled: Tensor
    ess_fraction: float
    transitions: int
    acceptance: float


@usual()
def refine_images(
    model: DensityModel, n: int, transitions: int = 10, draws_per_sample: int = 8
) -> RefinedImages:
    """Draws images from a density: importance resampling, then Langevin transitions under the critic.

    Resampling chooses among the generator's draws by weights N / q, at most 250 images at a time. What was chosen
    twice parts by Metropolis-adjusted Langevin transitions in the latent coordinates of the generator, which leave the
    density as it is. A generator that drops coordinates has none of these, and makes no
    transitions.

    Args:
        model: a density of images.
        n: number of images, positive.
        transitions: of every image, at least one.
        draws_per_sample: of the generator for each image, at least one, but 256 in all at least.

    Raises:
        ValueError: a number is not positive; a weight is NaN or infinite, or all weights are zero.

    Example:
        >>> from led_fast import density, evaluation, models
        >>> preset = models.IMAGE_PRESETS["tiny"]
        >>> model = density.DensityModel(models.image_critic(preset), models.image_generator(preset))
        >>> evaluation.refine_images(model, 5, transitions=2).images.shape
        torch.Size([5, 1, 8, 8])
    """
    for name, value in (("n", n), ("transitions", transitions), ("draws_per_sample", draws_per_sample)):
        if value < 1:
            raise ValueError(f"refine_images: {name} must be positive, got {value}")
    parts_wanted = -(-n // IMAGES_AT_A_TIME)
    parts, moved, shares, acceptances = [], [], [], []
    with eval_mode(model):
        critic, proposal, path, images_of = _ways(model)
        step_size = None
        # Of one size, because few draws choose badly.
        for size in [len(part) for part in torch.empty(n).tensor_split(parts_wanted)]:
            chosen, share = resample(critic, proposal, size, draws_per_sample)
            parts.append(images_of(chosen).cpu())
            shares.append(share)
            if path is None:
                continue
            step_size = step_size or langevin_step_size(path, chosen)
            walked, acceptance = langevin(path, chosen, step_size, transitions)
            moved.append(images_of(walked).cpu())
            acceptances.append(acceptance)
    resampled = torch.cat(parts)
    return RefinedImages(
        torch.cat(moved) if moved else resampled,
        resampled,
        sum(shares) / len(shares),
        transitions if moved else 0,
        sum(acceptances) / len(acceptances) if acceptances else math.nan,
    )


class _Ways(NamedTuple):
    critic: Callable[[Tensor], Tensor]
    proposal: Proposal
    path: AnnealingPath | None
    images_of: Callable[[Tensor], Tensor]


def _ways(model: DensityModel) -> _Ways:
    """What refines: in the generator's noise where the critic tilts its density, else in the images themselves."""
    if tilted := tilted_noise(model):
        return _Ways(
            tilted, tilted.noise, AnnealingPath(tilted, tilted.noise), torch.no_grad()(tilted.images)
        )
    flow = latent_bijection(model.generator)
    path = AnnealingPath(model.critic, flow) if flow is not None and flow.invertible else None
    net = model.own_tilt()
    if net is None:
        return _Ways(model.critic, StoredImages(model.generator), path, lambda images: images)
    return _Ways(net, OwnMeasure(model.generator), path, lambda images: images)
