"""Generator, critic and balance for densities of points, by preset name (Sec. 3.1, C.2: of the plane)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn

from led_fast.flows import (
    ActNorm,
    BatchNorm,
    GaussianConditional,
    Inflate,
    Linear,
    MixtureBase,
    OneWayFlow,
    Parametrization,
    Slice,
    SoftReLU,
    Staircase,
    StandardNormal,
)
from led_fast.models.dcgan_critic import Penalty
from led_fast.models.perceptron import GaussianTailCritic, Perceptron
from led_fast.models.start import start_near_identity
from led_fast.ranges import Count, Natural, Positive

_PLANE = 2


@dataclass(frozen=True)
class PointsGeneratorConfig:
    """A one-way flow onto points: D-dimensional base, inflated to `features`, through `blocks`, sliced back to D.

    Attributes:
        components: number of normals in the base's learned mixture; 1 is the standard normal, fixed.
        features: width inside, at least D; noise doubles it until it is reached.
        blocks: number of {linear, norm, activation} blocks.
        linear: what each linear layer of the full width learns, see :class:`led_fast.flows.Linear`.
        activation: "staircase", the paper's "soft_relu", or "learned_soft_relu", which learns the bends.
        steps: steps of each staircase.
        norm: "none", "act", "batch" (the paper's batch statistics) or "running".
        conditional: r of the dropped coordinates: "learned", in one slice, or the paper's "gaussian", σ = 1,
            halving at each slice.
        start: "random": layers as they are drawn. "identity": all noise comes at once, and blocks of "dense" layers and
            learned soft-ReLUs, without a norm, start where Eq. 8 is nearly true, see `led_fast.models.start`.

    Example:
        >>> from led_fast.models import PointsGeneratorConfig, points_generator
        >>> generator = points_generator(PointsGeneratorConfig(components=4, blocks=1))
    """

    components: Count = 64
    features: Count = 2
    blocks: Natural = 2
    linear: Parametrization = "dense"
    activation: Literal["staircase", "soft_relu", "learned_soft_relu"] = "staircase"
    steps: Count = 8
    norm: Literal["none", "act", "batch", "running"] = "none"
    conditional: Literal["learned", "gaussian"] = "learned"
    start: Literal["random", "identity"] = "random"


@dataclass(frozen=True)
class PointsCriticConfig:
    """A perceptron of points with a Gaussian tail, `f(x) = net(x) - ‖x‖² / (2 tail_scale²)`.

    Attributes:
        width: hidden units of each layer.
        depth: number of hidden layers.
        directions: number of Fourier frequencies of x; 0 feeds x alone.
        highest: largest angular frequency, in radians per unit of x.
        activation: "silu" or the paper's "leaky_relu" (slope 0.2).
        tail_scale: standard deviation of the tail, which keeps the integral finite; data of unit scale need
            about 2.
        penalty: "direction" or "exact" subtracts `Σ_k ‖x⊥_k‖` over the linear layers (Sec. 2.2), see
            :func:`led_fast.perpendicular`; "off" does not.
        squared: subtract `Σ_k ‖x⊥_k‖²` instead.

    Example:
        >>> from led_fast.models import PointsCriticConfig, points_critic
        >>> critic = points_critic(PointsCriticConfig(width=32, directions=16))
    """

    width: Count = 128
    depth: Natural = 3
    directions: Natural = 128
    highest: Positive = 30.0
    activation: Literal["silu", "leaky_relu"] = "silu"
    tail_scale: Positive = 2.0
    penalty: Penalty = "off"
    squared: bool = False


@dataclass(frozen=True)
class PointsPreset:
    """A generator and a critic that belong together; as written in `PRESETS`, for the plane.

    Example:
        >>> from led_fast.models import PRESETS
        >>> PRESETS["default"].critic.width
        128
    """

    generator: PointsGeneratorConfig = PointsGeneratorConfig()
    critic: PointsCriticConfig = PointsCriticConfig()

    def in_dimension(self, dim: int) -> PointsPreset:
        """The preset for points of `dim` coordinates: a generator with as many coordinates of noise."""
        features = self.generator.features - _PLANE + dim
        return replace(self, generator=replace(self.generator, features=features))


_PRINTED = PointsGeneratorConfig(
    components=1, features=256, blocks=8, activation="soft_relu", norm="batch", conditional="gaussian"
)
_PAPER = PointsGeneratorConfig(
    components=1,
    features=8,
    blocks=32,
    activation="learned_soft_relu",
    conditional="gaussian",
    start="identity",
)
_PAPER_CRITIC = PointsCriticConfig(width=256, directions=0, activation="leaky_relu")
PRESETS: dict[str, PointsPreset] = {
    "default": PointsPreset(),
    "inflated": PointsPreset(generator=PointsGeneratorConfig(features=4)),
    "perpendicular": PointsPreset(critic=PointsCriticConfig(penalty="direction")),
    "perpendicular_exact": PointsPreset(critic=PointsCriticConfig(penalty="exact")),
    "paper": PointsPreset(_PAPER),
    "paper_printed": PointsPreset(_PRINTED, _PAPER_CRITIC),
}


def points_generator(preset: str | PointsGeneratorConfig = "default", dim: int = _PLANE) -> OneWayFlow:
    """Builds the generator of a preset (a key of `PRESETS`) or of a config.

    Args:
        preset: a name, whose width grows with `dim` (:meth:`PointsPreset.in_dimension`), or a config, taken as it is.
        dim: D, number of coordinates of a point; samples are (n, D).

    Raises:
        ValueError: an unknown name, a config of fewer than `dim` features, or a start that does not suit its layers.

    Example:
        >>> from led_fast.models import points_generator
        >>> points_generator("default").sample(5).shape
        torch.Size([5, 2])
    """
    config = _preset(preset).in_dimension(dim).generator if isinstance(preset, str) else preset
    if config.features < dim:
        raise ValueError(f"points_generator: features must be at least {dim}, got {config.features}")
    layers_of = (config.activation, config.linear, config.norm)
    if config.start == "identity" and layers_of != ("learned_soft_relu", "dense", "none"):
        raise ValueError(
            'points_generator: with start "identity" activation, linear and norm must be "learned_soft_relu", "dense" '
            f'and "none", got {layers_of}'
        )
    layers = _inflation(config, dim)
    if config.start == "identity":
        layers += _blocks_near_identity(config, dim)
    else:
        for _ in range(config.blocks):
            layers += [_block_linear(config, dim), *_norm(config), _activation(config)]
        layers.append(_block_linear(config, dim))
    base = (
        MixtureBase(dim, config.components, spread=0.8, scale=0.15)
        if config.components > 1
        else StandardNormal(dim)
    )
    return OneWayFlow(base, layers + _slices(config, dim))


def points_critic(preset: str | PointsCriticConfig = "default", dim: int = _PLANE) -> GaussianTailCritic:
    """Builds the critic of a preset (a key of `PRESETS`) or of a config: f(x), (B, dim) -> (B,).

    Example:
        >>> import torch
        >>> from led_fast.models import points_critic
        >>> points_critic("default")(torch.zeros(5, 2)).shape
        torch.Size([5])
    """
    config = _preset(preset).critic if isinstance(preset, str) else preset
    net = Perceptron(
        dim,
        config.width,
        config.depth,
        config.directions,
        config.highest,
        config.activation,
        config.penalty,
        config.squared,
    )
    return GaussianTailCritic(net, torch.zeros(dim), config.tail_scale)


def points_balance(dim: int = _PLANE) -> Perceptron:
    """Builds the classifier that balances the proposals of `led_fast.density.CoveringProposal`: (B, dim) -> (B,).

    Example:
        >>> import torch
        >>> from led_fast.models import points_balance
        >>> points_balance()(torch.zeros(5, 2)).shape
        torch.Size([5])
    """
    return Perceptron(dim, width=64, depth=2, directions=32, highest=30.0, activation="silu")


def _preset(name: str) -> PointsPreset:
    if name not in PRESETS:
        raise ValueError(f"models: preset must be one of {', '.join(sorted(PRESETS))}, got {name!r}")
    return PRESETS[name]


def _inflation(config: PointsGeneratorConfig, dim: int) -> list[nn.Module]:
    """From `dim` to all features; noise that comes in steps is turned among the rest before more of it comes."""
    if config.start == "identity":
        return [Inflate(config.features - dim)] if config.features > dim else []
    layers: list[nn.Module] = []
    width = dim
    while width < config.features:
        grown = min(2 * width, config.features)
        layers += [Inflate(grown - width), Linear(grown)]
        width = grown
    return layers[:-1]  # the first block starts with a linear layer of its own


def _blocks_near_identity(config: PointsGeneratorConfig, dim: int) -> list[nn.Module]:
    features = config.features
    blocks = [(Linear(features), SoftReLU(features=features, learned=True)) for _ in range(config.blocks)]
    last = Linear(features)
    start_near_identity(blocks, last, dim, _halvings(config, dim) if config.conditional == "gaussian" else ())
    return [*(layer for block in blocks for layer in block), last]


def _block_linear(config: PointsGeneratorConfig, dim: int) -> Linear:
    linear = Linear(config.features, config.linear)
    if config.features > dim and config.activation == "staircase":
        # So the noise does not blur the base at first: from random rotations modes are lost.
        _move_to_identity(linear)
    return linear


@torch.no_grad()
def _move_to_identity(linear: Linear) -> None:
    """Starts a linear layer near the identity."""
    if linear.parametrization == "dense":
        nn.init.eye_(linear.weight).add_(0.1 * torch.randn_like(linear.weight))
    elif linear.parametrization == "lu":
        linear.factors.normal_(std=0.1)
        linear.signs.fill_(1.0)
        linear.order.copy_(torch.arange(linear.features))
    else:
        linear.left.mul_(0.1)


def _norm(config: PointsGeneratorConfig) -> list[nn.Module]:
    if config.norm == "none":
        return []
    return [ActNorm(config.features) if config.norm == "act" else BatchNorm(config.features, config.norm)]


def _activation(config: PointsGeneratorConfig) -> nn.Module:
    if config.activation == "staircase":
        return Staircase(config.features, config.steps)
    if config.activation == "learned_soft_relu":
        return SoftReLU(features=config.features, learned=True)
    return SoftReLU()


def _slices(config: PointsGeneratorConfig, dim: int) -> list[nn.Module]:
    if config.conditional == "gaussian":
        return [Slice(width, keep, GaussianConditional()) for width, keep in _halvings(config, dim)]
    return [Slice(config.features, keep=dim)] if config.features > dim else []


def _halvings(config: PointsGeneratorConfig, dim: int) -> list[tuple[int, int]]:
    """(width, how many are kept) of slices from all features down to `dim`."""
    found, width = [], config.features
    while width > dim:
        keep = max(dim, (width + 1) // 2)
        found.append((width, keep))
        width = keep
    return found
