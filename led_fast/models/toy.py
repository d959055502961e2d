"""Generator, critic and balance for densities on the plane, by preset name (Sec. 3.1, C.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from led_fast.flows import (
    ActNorm,
    BatchNorm,
    GaussianConditional,
    Inflate,
    Linear,
    MixtureBase,
    OneWayFlow,
    Slice,
    SoftReLU,
    Staircase,
    StandardNormal,
)
from led_fast.models.dcgan_critic import Penalty
from led_fast.nn import FourierFeatures, PerpendicularLinear, PerpendicularSequential


@dataclass(frozen=True)
class ToyGeneratorConfig:
    """A one-way flow onto the plane: 2-D base, inflated to `features`, through `blocks`, sliced back to 2-D.

    Attributes:
        components: number of normals in the base's learned mixture; 1 is the standard normal, fixed.
        features: width inside; noise doubles it until it is reached.
        blocks: number of {linear, norm, activation} blocks.
        activation: "staircase" or the paper's "soft_relu".
        steps: steps of each staircase.
        norm: "none", "act", "batch" (the paper's batch statistics) or "running".
        conditional: r of the dropped coordinates: "learned", in one slice, or the paper's "gaussian", σ = 1,
            halving at each slice.
    """

    components: int = 64
    features: int = 2
    blocks: int = 2
    activation: Literal["staircase", "soft_relu"] = "staircase"
    steps: int = 8
    norm: Literal["none", "act", "batch", "running"] = "none"
    conditional: Literal["learned", "gaussian"] = "learned"


@dataclass(frozen=True)
class ToyCriticConfig:
    """A perceptron on the plane with a Gaussian tail, `f(x) = net(x) - ‖x‖² / (2 tail_scale²)`.

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
    """

    width: int = 128
    depth: int = 3
    directions: int = 128
    highest: float = 30.0
    activation: Literal["silu", "leaky_relu"] = "silu"
    tail_scale: float = 2.0
    penalty: Penalty = "off"
    squared: bool = False


@dataclass(frozen=True)
class ToyPreset:
    """A generator and a critic that belong together."""

    generator: ToyGeneratorConfig = ToyGeneratorConfig()
    critic: ToyCriticConfig = ToyCriticConfig()


PRESETS: dict[str, ToyPreset] = {
    "default": ToyPreset(),
    "inflated": ToyPreset(generator=ToyGeneratorConfig(features=4)),
    "perpendicular": ToyPreset(critic=ToyCriticConfig(penalty="direction")),
    "perpendicular_exact": ToyPreset(critic=ToyCriticConfig(penalty="exact")),
    "paper": ToyPreset(
        generator=ToyGeneratorConfig(
            components=1, features=256, blocks=8, activation="soft_relu", norm="batch", conditional="gaussian"
        ),
        critic=ToyCriticConfig(width=256, directions=0, activation="leaky_relu"),
    ),
}


def toy_generator(preset: str | ToyGeneratorConfig = "default") -> OneWayFlow:
    """Builds the generator of a preset (a key of `PRESETS`) or of a config: samples (n, 2)."""
    config = _preset(preset).generator if isinstance(preset, str) else preset
    if config.features < 2:
        raise ValueError(f"toy_generator: features must be at least 2, got {config.features}")
    layers: list[nn.Module] = []
    width = 2
    while width < config.features:
        grown = min(2 * width, config.features)
        layers += [Inflate(grown - width), Linear(grown)]
        width = grown
    if layers:
        layers.pop()  # the first block starts with a linear layer of its own
    for _ in range(config.blocks):
        layers += [_block_linear(config), *_norm(config), _activation(config)]
    layers.append(_block_linear(config))
    base = (
        MixtureBase(2, config.components, spread=0.8, scale=0.15)
        if config.components > 1
        else StandardNormal(2)
    )
    return OneWayFlow(base, layers + _slices(config))


def toy_critic(preset: str | ToyCriticConfig = "default") -> GaussianTailCritic:
    """Builds the critic of a preset (a key of `PRESETS`) or of a config: f(x), (B, 2) -> (B,)."""
    config = _preset(preset).critic if isinstance(preset, str) else preset
    net = Perceptron(
        2,
        config.width,
        config.depth,
        config.directions,
        config.highest,
        config.activation,
        config.penalty,
        config.squared,
    )
    return GaussianTailCritic(net, torch.zeros(2), config.tail_scale)


def toy_balance() -> Perceptron:
    """Builds the classifier that balances the proposals of `led_fast.density.CoveringProposal`."""
    return Perceptron(2, width=64, depth=2, directions=32, highest=30.0, activation="silu")


class Perceptron(nn.Module):
    """A perceptron with one output, on Fourier features of its input where `directions` > 0.

    With a penalty, the output is less the norms of what its linear layers do not look at.

    Shape:
        x: (B, features). Output: (B,).
    """

    def __init__(
        self,
        features: int,
        width: int,
        depth: int,
        directions: int,
        highest: float,
        activation: str,
        penalty: Penalty = "off",
        squared: bool = False,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if directions:
            layers.append(FourierFeatures(features, directions, highest=highest))
            features += 2 * directions
        for _ in range(depth):
            layers.append(_linear(features, width, penalty))
            layers.append(nn.SiLU() if activation == "silu" else nn.LeakyReLU(0.2))
            features = width
        self.net = PerpendicularSequential(*layers, _linear(features, 1, penalty), squared=squared)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the value at each row of x."""
        value, penalty = self.net(x)
        return value.squeeze(1) - penalty


class GaussianTailCritic(nn.Module):
    """A critic of finite integral, `f(x) = net(x) - ‖x - mean‖² / (2 scale²)`, for a net that grows slower.

    Args:
        net: (B, ...) -> (B,).
        mean: centre of the tail, the shape of one x.
        scale: standard deviation of the tail, wider than the data.
    """

    mean: Tensor

    def __init__(self, net: nn.Module, mean: Tensor, scale: float) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"GaussianTailCritic: scale must be positive, got {scale}")
        self.net = net
        self.scale = scale
        self.register_buffer("mean", mean.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Returns f(x) = log N(x)."""
        distance = ((x - self.mean) / self.scale).flatten(1).square().sum(dim=1)
        return self.net(x) - 0.5 * distance


def _linear(features: int, outs: int, penalty: Penalty) -> nn.Linear:
    if penalty == "off":
        return nn.Linear(features, outs)
    return PerpendicularLinear(features, outs, mode=penalty)


def _preset(name: str) -> ToyPreset:
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}: choose one of {', '.join(sorted(PRESETS))}")
    return PRESETS[name]


def _block_linear(config: ToyGeneratorConfig) -> Linear:
    linear = Linear(config.features)
    if config.features > 2 and config.activation == "staircase":
        # Near the identity the noise does not blur the base at first: from random rotations modes are lost.
        nn.init.eye_(linear.weight)
        with torch.no_grad():
            linear.weight.add_(0.1 * torch.randn_like(linear.weight))
    return linear


def _norm(config: ToyGeneratorConfig) -> list[nn.Module]:
    if config.norm == "none":
        return []
    return [ActNorm(config.features) if config.norm == "act" else BatchNorm(config.features, config.norm)]


def _activation(config: ToyGeneratorConfig) -> nn.Module:
    return Staircase(config.features, config.steps) if config.activation == "staircase" else SoftReLU()


def _slices(config: ToyGeneratorConfig) -> list[nn.Module]:
    width = config.features
    if width == 2:
        return []
    if config.conditional == "learned":
        return [Slice(width, keep=2)]
    slices: list[nn.Module] = []
    while width > 2:
        keep = max(2, (width + 1) // 2)
        slices.append(Slice(width, keep, GaussianConditional()))
        width = keep
    return slices
