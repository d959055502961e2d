"""Every layer of a flow, by one constructor each: what the tests of the contract and of the transforms run over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from flow_oracles import randomize
from torch import Tensor, nn

from led_fast import flows
from led_fast.flows import (
    ActNorm,
    Affine,
    BatchNorm,
    ChannelShuffle,
    CircularConv2d,
    Coupling,
    DarkMap,
    GaussianConditional,
    Inflate,
    Inverse,
    LightMap,
    Linear,
    Marginal,
    OneWayFlow,
    PairNeighbors,
    PixelShuffle,
    Sigmoid,
    Slice,
    SoftReLU,
    Staircase,
    StandardNormal,
    Unflatten,
)

IMAGE = (4, 4, 6)


@dataclass(frozen=True)
class Case:
    """How to build a layer, the shape of one sample, how far its parameters may be moved off their start, and around
    what and how widely its inputs lie."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...] = IMAGE
    moved: float = 0.2
    around: float = 0.0
    spread: float = 1.5


class Network(nn.Module):
    """A small network of `outs` channels that looks at neighbours."""

    def __init__(self, given: int, outs: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(given, 5, 3, padding=1), nn.Tanh(), nn.Conv2d(5, outs, 3, padding=1)
        )

    def forward(self, t: Tensor) -> Tensor:
        return self.net(t)


def table() -> Tensor:
    """60 rows of 4 features, always the same."""
    return 1.5 * torch.randn(60, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def mixed_table() -> Tensor:
    """Integers, numbers, numbers most of which are 0, halves."""
    u = table()
    return torch.stack([u[:, 0].round(), u[:, 1], u[:, 2].relu(), (2 * u[:, 3]).round() / 2], dim=1)


def pictures() -> Tensor:
    """Ten images."""
    return torch.rand(10, *IMAGE, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


LAYERS: dict[str, Case] = {
    "ActNorm": Case(lambda: ActNorm(4)),
    "ActNorm, flat": Case(lambda: ActNorm(4), (4,)),
    "Affine": Case(lambda: Affine(torch.tensor(-2.0), torch.tensor(0.5))),
    "Affine, flat": Case(lambda: Affine(torch.tensor([2.0, -0.5, 3.0, 0.1]), torch.arange(4.0)), (4,)),
    "BatchNorm": Case(lambda: BatchNorm(4)),
    "BatchNorm, batch": Case(lambda: BatchNorm(4, "batch")),
    "ChannelShuffle": Case(lambda: ChannelShuffle(2)),
    "ChannelShuffle, unlike groups": Case(lambda: ChannelShuffle(2), (6, 2, 1)),
    "CircularConv2d": Case(lambda: CircularConv2d(4, 3)),
    "CircularConv2d, even": Case(lambda: CircularConv2d(4, (2, 4), bias=False)),
    "CircularConv2d, wraps": Case(lambda: CircularConv2d(4, (7, 5)), moved=0.1),
    "Coupling": Case(lambda: Coupling(Network(1, 6), 4, 1)),
    "Coupling, last": Case(lambda: Coupling(Network(3, 2), 4, 3, given_first=False)),
    "Coupling, whitens": Case(lambda: Coupling(Network(3, 2), 4, 3, given_first=False, whiten=True)),
    "DarkMap": Case(
        DarkMap, around=4.5, spread=0.5
    ),  # black pixels, whose slopes are tiny, are in test_flows_dark.py
    "Inflate": Case(lambda: Inflate(2)),
    "Inverse": Case(lambda: Inverse(CircularConv2d(4, 3))),
    "Inverse, coupling": Case(lambda: Inverse(Coupling(Network(1, 6), 4, 1))),
    "LightMap": Case(LightMap, around=4.5, spread=0.5),
    "Linear": Case(lambda: Linear(5), (5,)),
    "Linear, lu": Case(lambda: Linear(5, "lu"), (5,)),
    "Linear, woodbury": Case(lambda: Linear(5, "woodbury", rank=2), (5,)),
    "Marginal": Case(lambda: Marginal(4, 8)),
    "Marginal, discrete": Case(lambda: Marginal.fit(table().round(), [1.0] * 4), (4,)),
    "Marginal, continuous": Case(lambda: Marginal.fit(table()), (4,)),
    "Marginal, mixed": Case(lambda: Marginal.fit(mixed_table(), [1.0, 0.0, 0.0, 0.5]), (4,)),
    "Marginal, image": Case(lambda: Marginal.fit((8 * pictures()).floor() / 8, [1 / 8] * 4)),
    "OneWayFlow": Case(
        lambda: OneWayFlow(StandardNormal(3), [Linear(3), SoftReLU(), Linear(3), Staircase(3)]), (3,)
    ),
    "PairNeighbors, columns": Case(lambda: PairNeighbors("columns")),
    "PairNeighbors, rows": Case(lambda: PairNeighbors("rows")),
    "PixelShuffle": Case(lambda: PixelShuffle(2)),
    "Sigmoid": Case(Sigmoid),
    "Slice": Case(lambda: Slice(4, 2, GaussianConditional())),
    "SoftReLU": Case(lambda: SoftReLU(u0=0.3)),
    "SoftReLU, flat": Case(lambda: SoftReLU(alpha=3.0, beta=0.5), (4,)),
    "SoftReLU, learned": Case(lambda: SoftReLU(features=4, learned=True)),
    "Staircase": Case(lambda: Staircase(4, steps=5)),
    "Staircase, flat": Case(lambda: Staircase(4, steps=3), (4,)),
    "Unflatten": Case(lambda: Unflatten(2, 12, 4), (96,)),
}
BIJECTIVE = [name for name, case in LAYERS.items() if case.build().bijective]


def public_layers() -> set[type[nn.Module]]:
    """Every layer class that `led_fast.flows` exports."""
    exported = (getattr(flows, name) for name in flows.__all__)
    classes = {item for item in exported if isinstance(item, type) and hasattr(item, "forward_with_score")}
    return classes - {flows.Layer}


def trained_like(name: str, dtype: torch.dtype = torch.float64, samples: int = 3) -> tuple[nn.Module, Tensor]:
    """A layer away from its start, with statistics of a batch, in eval mode; and an input of it."""
    case = LAYERS[name]
    layer = case.build().to(dtype)
    t = case.around + case.spread * torch.randn(max(samples, 3), *case.shape, dtype=dtype)
    layer(t)
    return randomize(layer, case.moved).eval(), t[:samples].clone()
