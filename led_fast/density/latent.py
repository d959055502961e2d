"""Walks in the latent space of a generator: from sample to sample (Fig. 5), and uphill in density (Fig. 12)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from led_fast.density.mode import eval_mode
from led_fast.flows import Inflate, Layer, OneWayFlow, StandardNormal
from led_fast.flows.contract import inverse, total
from led_fast.random_state import seeded

_PARALLEL = 1e-3  # the sine of an angle that float32 cannot tell well from 0 or π


class LatentAscent(NamedTuple):
    """Samples before and after an ascent, (n, ...), and the critic's values there, (n,), in nats."""

    before: Tensor
    after: Tensor
    score_before: Tensor
    score_after: Tensor


@torch.no_grad()
def interpolate(generator: OneWayFlow, pairs: int, steps: int) -> Tensor:
    """Samples along great circles between pairs of latent values, in one dimension along lines.

    The noise that layers add on the way is the same at every step of a row. A great circle, not a straight
    line: halfway on a line between two normal draws lies a point that is shorter than nearly all draws.

    Args:
        generator: with a standard normal base.
        pairs: number of rows.
        steps: samples in a row, ends included, at least 2.

    Returns:
        (pairs, steps, ...).

    Example:
        >>> from led_fast import density, flows
        >>> generator = flows.OneWayFlow(flows.StandardNormal(2), [flows.Linear(2)])
        >>> density.interpolate(generator, pairs=3, steps=5).shape
        torch.Size([3, 5, 2])
    """
    if steps < 2:
        raise ValueError(f"interpolate: steps must be at least 2, got {steps}")
    start, end = (generator.base.rsample(pairs) for _ in range(2))
    draw = _with_fixed_noise(generator, start.device)
    with eval_mode(generator):
        rows = [draw(_slerp(start, end, i / (steps - 1))) for i in range(steps)]
    return torch.stack(rows, dim=1)


def ascend(
    generator: OneWayFlow,
    critic: Callable[[Tensor], Tensor],
    latents: Tensor,
    steps: int = 100,
    learning_rate: float = 0.05,
) -> LatentAscent:
    """Moves latent values uphill in the critic's value of their samples, by Adam.

    The noise that layers add on the way stays the same. So does a coordinate whose gradient is not finite.

    Args:
        generator: maps latent values to samples.
        critic: f, (n, ...) -> (n,).
        latents: where to start, (n, ...).
        steps: of Adam.
        learning_rate: of Adam, in units of the base's standard deviation.

    Example:
        >>> from led_fast import density, flows
        >>> generator = flows.OneWayFlow(flows.StandardNormal(2), [flows.Linear(2)])
        >>> found = density.ascend(generator, lambda y: -y.square().sum(1), generator.base.rsample(4), steps=20)
        >>> bool((found.score_after > found.score_before).all())
        True
    """
    draw = _with_fixed_noise(generator, latents.device)
    z = latents.clone().requires_grad_()
    optimizer = torch.optim.Adam([z], learning_rate)
    with eval_mode(generator, critic):
        before = draw(latents).detach()
        for _ in range(steps):
            (gradient,) = torch.autograd.grad(-critic(draw(z)).sum(), z)
            z.grad = gradient.nan_to_num(0, 0, 0)
            optimizer.step()
        with torch.no_grad():
            after = draw(z)
            return LatentAscent(before, after, critic(before), critic(after))


def far_latents(generator: OneWayFlow, nearest: float, farthest: float, n: int) -> Tensor:
    """Latent values in random directions, `nearest` to `farthest` standard deviations away: (n, ...).

    A distance of r σ is r times that of a typical draw, √D σ: r = 1 is where samples come from.

    Example:
        >>> from led_fast import density, flows
        >>> generator = flows.OneWayFlow(flows.StandardNormal(2), [flows.Linear(2)])
        >>> density.far_latents(generator, nearest=2.0, farthest=4.0, n=5).shape
        torch.Size([5, 2])
    """
    z = generator.base.rsample(n)
    radius = torch.linspace(nearest, farthest, n, device=z.device, dtype=z.dtype)
    scale = radius * math.sqrt(z[0].numel()) / z.flatten(1).norm(dim=1)
    return z * scale.view(-1, *[1] * (z.dim() - 1))


def latent_bijection(generator: OneWayFlow) -> OneWayFlow | None:
    """The same distribution as a bijection of all the noise that a generator draws, (B, D); None where it drops any."""
    base, layers = generator.base, list(generator.layers)
    if not isinstance(base, StandardNormal) or not all(
        isinstance(layer, Inflate) or getattr(layer, "bijective", False) for layer in layers
    ):
        return None
    with torch.no_grad(), eval_mode(generator):
        dimension = generator.rsample(1).numel()
        start = base.rsample(1)
    return OneWayFlow(StandardNormal(dimension).to(start), [_OfAllNoise(layers, start.shape[1:])])


class _OfAllNoise(Layer):
    """The layers of a one-way flow, but that noise is not drawn by them: it comes with the latent values, (B, D)."""

    bijective = invertible = True

    def __init__(self, layers: list[nn.Module], latents: torch.Size) -> None:
        super().__init__()
        self.layers, self.latents = nn.ModuleList(layers), latents

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        noise, used = t, self.latents.numel()
        t, steps = noise[:, :used].unflatten(1, self.latents), []
        for layer in self.layers:
            if isinstance(layer, Inflate):
                shape = (layer.features, *t.shape[2:])
                drawn = noise[:, used : used + math.prod(shape)].unflatten(1, shape)
                t, used = torch.cat([t, drawn], dim=1), used + math.prod(shape)
            else:
                t, step = layer(t)
                steps.append(step)
        return t, total(steps, t)

    def inverse(self, t: Tensor) -> tuple[Tensor, Tensor]:
        noise, steps = [], []
        for layer in reversed(self.layers):
            if isinstance(layer, Inflate):
                t, drawn = t.split([t.shape[1] - layer.features, layer.features], dim=1)
                noise.append(drawn.flatten(1))
            else:
                t, step = inverse(layer, t)
                steps.append(step)
        return torch.cat([t.flatten(1), *reversed(noise)], dim=1), total(steps, t)


def _with_fixed_noise(generator: OneWayFlow, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The generator as a function: the noise that its layers draw depends on the number of samples alone."""
    seed = int(torch.randint(2**62, (), device="cpu"))

    def draw(z: Tensor) -> Tensor:
        with seeded(seed, device):
            return generator(z)[0]

    return draw


def _slerp(start: Tensor, end: Tensor, at: float) -> Tensor:
    """The point at a share of the great circle from start to end, (n, ...) each; of the line where there is none.

    (Anti)parallel values have none, or too many: so it is always in one dimension.
    """
    cosine = torch.cosine_similarity(start.flatten(1), end.flatten(1)).clamp(-1, 1)
    angle = cosine.acos().view(-1, *[1] * (start.dim() - 1))
    sine = angle.sin()
    straight = sine < _PARALLEL
    of_start, of_end = (
        torch.where(straight, share, (share * angle).sin() / sine) for share in (1 - at, at)
    )  # NaN only where it is not taken
    return of_start * start + of_end * end
