"""Layers run backward, where they can be: the density of any given point, not only of what the flow draws.

Sampling never needs this. It serves two ends: to hold a generator's density against data, and to train it on
data directly. Each rule is registered here; a layer without one, as `Slice`, which forgets what it drops, is a
`NotInvertibleError`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import singledispatch

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from led_fast.flows.contract import per_feature, standard_normal_log_prob, sum_event
from led_fast.flows.coupling import Coupling
from led_fast.flows.dimension import Inflate
from led_fast.flows.elementwise import Affine, Sigmoid, Staircase, staircase_derivatives
from led_fast.flows.flow import OneWayFlow
from led_fast.flows.image import ChannelShuffle, PixelShuffle, Unflatten
from led_fast.flows.linear import Linear
from led_fast.flows.norm import ActNorm, BatchNorm
from led_fast.nn import CircularConv2d, SoftReLU
from led_fast.reference import circulant_symbols

_LEAST = 1e-20  # logits end here, far below what dequantised data and generators come to
_NEWTON_STEPS = 60
_TABLE = 2048
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8}  # one more Newton step squares it


class NotInvertibleError(TypeError):
    """A layer has no rule by which it could be run backward."""


def flow_log_prob(flow: OneWayFlow, y: Tensor) -> Tensor:
    """Log density of a flow at any y, (B, ...) -> (B,), in nats; differentiable in y and all parameters.

    Raises:
        TypeError: the flow has a layer that cannot be inverted.
    """
    z, ladj = inverse(flow, y)
    return flow.base.log_prob(z) - ladj


def logit(x: Tensor) -> Tensor:
    """`log(x / (1 - x))`, finite in all of [0, 1]; differentiable.

    Floating-point numbers are dense at 0, but those of float32 lie 6e-8 apart at 1. So the two ends are not alike:
    a bound that suits 1 would cut off at 0 what the black pixels of dequantised images, and of a generator of
    them, take values in.
    """
    precision = torch.finfo(x.dtype)
    return x.clamp(min=max(_LEAST, precision.tiny)).log() - (1 - x).clamp(min=0.5 * precision.eps).log()


@singledispatch
def inverse(layer: nn.Module, out: Tensor) -> tuple[Tensor, Tensor]:
    """Finds t with `layer(t)[0] == out`.

    Args:
        layer: keeps the contract of `led_fast.flows.contract`.
        out: its output, (B, ...).

    Returns:
        (t, ladj) with ladj the one of `layer(t)`; both differentiable in `out` and the layer's parameters.
    """
    raise NotInvertibleError(f"inverse: {type(layer).__name__} cannot be inverted")


@inverse.register
def _(layer: OneWayFlow, out: Tensor) -> tuple[Tensor, Tensor]:
    ladj = out.new_zeros(len(out))
    for step in reversed(layer.layers):
        out, of_step = inverse(step, out)
        ladj = ladj + of_step
    return out, ladj


@inverse.register
def _(layer: Inflate, out: Tensor) -> tuple[Tensor, Tensor]:
    kept = out.shape[1] - layer.features
    return out[:, :kept], -standard_normal_log_prob(out[:, kept:])


@inverse.register
def _(layer: Coupling, out: Tensor) -> tuple[Tensor, Tensor]:
    given, changed = layer.split(out)
    shift, log_scale = layer.affine(given)
    return layer.join(given, (changed - shift) * (-log_scale).exp()), sum_event(log_scale)


@inverse.register
def _(layer: Linear, out: Tensor) -> tuple[Tensor, Tensor]:
    t = torch.linalg.solve(layer.weight.mT, out - layer.bias, left=False)
    return t, torch.linalg.slogdet(layer.weight).logabsdet.expand(len(out))


@inverse.register
def _(layer: ActNorm, out: Tensor) -> tuple[Tensor, Tensor]:
    return _inverse_norm(out, layer.mean, layer.log_scale, layer.shift)


@inverse.register
def _(layer: BatchNorm, out: Tensor) -> tuple[Tensor, Tensor]:
    log_scale = layer.log_gamma - 0.5 * (layer.running_var + layer.eps).log()
    return _inverse_norm(out, layer.running_mean, log_scale, layer.beta)


def _inverse_norm(out: Tensor, mean: Tensor, log_scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    t = (out - per_feature(shift, out)) * per_feature((-log_scale).exp(), out) + per_feature(mean, out)
    return t, (log_scale.sum() * math.prod(out.shape[2:])).expand(len(out))


@inverse.register
def _(layer: CircularConv2d, out: Tensor) -> tuple[Tensor, Tensor]:
    if layer.bias is not None:
        out = out - layer.bias[:, None, None]
    grid = (out.shape[-2], out.shape[-1])
    symbols = circulant_symbols(layer.weight, grid).conj()  # see the score rule of the same layer
    spectrum = torch.fft.rfft2(out).permute(2, 3, 1, 0)
    t = torch.fft.irfft2(torch.linalg.solve(symbols, spectrum).permute(3, 2, 0, 1), s=grid)
    centre = [-((k - 1) // 2) for k in layer.kernel_size]
    return t.roll(centre, dims=(-2, -1)), layer.log_abs_det(grid).expand(len(out))


@inverse.register
def _(layer: Unflatten, out: Tensor) -> tuple[Tensor, Tensor]:
    return out.flatten(1), out.new_zeros(len(out))


@inverse.register
def _(layer: PixelShuffle, out: Tensor) -> tuple[Tensor, Tensor]:
    return F.pixel_unshuffle(out, layer.factor), out.new_zeros(len(out))


@inverse.register
def _(layer: ChannelShuffle, out: Tensor) -> tuple[Tensor, Tensor]:
    return F.channel_shuffle(out, out.shape[1] // layer.groups), out.new_zeros(len(out))


@inverse.register
def _(layer: Affine, out: Tensor) -> tuple[Tensor, Tensor]:
    ladj = layer.scale.expand(out.shape[1:]).abs().log().sum()
    return (out - layer.shift) / layer.scale, ladj.expand(len(out))


@inverse.register
def _(layer: Sigmoid, out: Tensor) -> tuple[Tensor, Tensor]:
    t = logit(out)
    return t, layer(t)[1]


@inverse.register
def _(layer: SoftReLU, out: Tensor) -> tuple[Tensor, Tensor]:
    ratio = layer.beta / layer.alpha

    def value_and_slope(t: Tensor) -> tuple[Tensor, Tensor]:
        sigma = torch.sigmoid((layer.alpha - layer.beta) * (t - layer.u0))
        return layer(t)[0], ratio + (1 - ratio) * sigma

    with torch.no_grad():
        reach = (layer(torch.zeros_like(out))[0] - out) / -ratio  # no slope is less than the ratio
    return _solve(layer, out, value_and_slope, reach.clamp(max=0), reach.clamp(min=0), 0.5 * reach)


@inverse.register
def _(layer: Staircase, out: Tensor) -> tuple[Tensor, Tensor]:
    centers, heights, steepness, slope = (part.detach() for part in layer.steps_in_use())

    def value_and_slope(t: Tensor) -> tuple[Tensor, Tensor]:
        last = t.movedim(1, -1)
        tanh, derivative, _ = staircase_derivatives(last, centers, heights, steepness, slope)
        value = (heights * tanh).sum(-1) + slope * last
        return value.movedim(-1, 1), derivative.movedim(-1, 1)

    with torch.no_grad():
        # A table of each feature's staircase brackets its inverse closely.
        targets = out.transpose(0, 1).flatten(1).contiguous()
        ends = torch.stack([targets.amin(1) - heights.sum(1), targets.amax(1) + heights.sum(1)]) / slope
        shares = torch.linspace(0, 1, _TABLE, dtype=out.dtype, device=out.device)
        places = torch.lerp(ends[0], ends[1], shares[:, None])
        table = value_and_slope(places)[0].mT.contiguous()
        index = torch.searchsorted(table, targets).clamp(1, _TABLE - 1)
        low, high, below, above = (
            rows.gather(1, at).view(out.shape[1], len(out), *out.shape[2:]).transpose(0, 1)
            for rows in (places.mT, table)
            for at in (index - 1, index)
        )
        start = low + (high - low) * ((out - below) / (above - below)).clamp(0, 1)
    return _solve(layer, out, value_and_slope, low, high, start)


def _solve(
    layer: nn.Module,
    out: Tensor,
    value_and_slope: Callable[[Tensor], tuple[Tensor, Tensor]],
    low: Tensor,
    high: Tensor,
    t: Tensor,
) -> tuple[Tensor, Tensor]:
    """Inverts an increasing function of each element, between `low` and `high`, by Newton's method from t on.

    It bisects where that leaves the bracket. Gradients come from one more Newton step, with the layer itself,
    by the implicit function theorem.
    """
    with torch.no_grad():
        target = out.detach()
        for _ in range(_NEWTON_STEPS):
            value, slope = value_and_slope(t)
            error = value - target
            low, high = torch.where(error < 0, t, low), torch.where(error > 0, t, high)
            newton = t - error / slope
            step = torch.where((newton >= low) & (newton <= high), newton, 0.5 * (low + high))
            moved = (step - t).abs() > _TOLERANCE[t.dtype] * (1 + t.abs())
            t = step
            if not bool(moved.any()):
                break
        slope = value_and_slope(t)[1]
    t = t - (layer(t)[0] - out) / slope
    return t, layer(t)[1]
