"""Networks of tables: a flow of normal columns, and a critic that tilts its density by no more than a cap."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from led_fast.density import DensityModel
from led_fast.flows import Coupling, Linear, Marginal, MixtureBase, OneWayFlow
from led_fast.flows.contract import Layer
from led_fast.models.cap import capped, least_upper_bound
from led_fast.nn import MixedSequential
from led_fast.ranges import Count, Natural, Positive, ShareBelowOne

_FARTHEST = (
    1e18  # of normal columns: farther ones are as good as impossible, too, and would overflow in the networks
)


@dataclass(frozen=True)
class TableGeneratorConfig:
    """A bijective flow onto D columns that are normal each by itself.

    Attributes:
        components: number of normals in the base's learned mixture.
        blocks: number of {coupling of each half, linear}.
        width: hidden units of the couplings' networks.
        depth: number of their hidden layers.
        dropout: share of these units that a training step leaves out.
        bound: largest log scale of a coupling.
    """

    components: Count = 32
    blocks: Count = 6
    width: Count = 128
    depth: Natural = 2
    dropout: ShareBelowOne = 0.0
    bound: Positive = 2.0


@dataclass(frozen=True)
class TableCriticConfig:
    """A perceptron that tilts the flow's density.

    Attributes:
        width: hidden units of each layer.
        depth: number of hidden layers.
        cap: the tilt comes to no more than cap + log(1 + e^-cap) nats, smoothly; so importance weights are bounded.
    """

    width: Count = 128
    depth: Natural = 3
    cap: Positive = 5.0


def table_generator(config: TableGeneratorConfig, dim: int) -> OneWayFlow:
    """Builds the flow of a config onto normal columns: samples (n, dim). A single column has no couplings."""
    layers: list[nn.Module] = []
    first = dim // 2
    for _ in range(config.blocks if dim > 1 else 1):
        if dim > 1:
            for given, given_first in ((first, True), (dim - first, False)):
                network = _perceptron(given, 2 * (dim - given), config.width, config.depth, config.dropout)
                layers.append(Coupling(network, dim, given, given_first, bound=config.bound))
        layers.append(_Backward(Linear(dim)))
    return OneWayFlow(MixtureBase(dim, config.components, spread=0.5, scale=0.9), layers).float()


class _Backward(Layer):
    """A layer the other way round: likelihood then runs its forward map, and only samples have to undo a matrix."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The layer's inverse."""
        return self.layer.inverse(t)

    def inverse(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The layer's forward map."""
        return self.layer(t)


class CappedTilt(nn.Module):
    """A perceptron of standardised features, 0 at first and never more than a cap.

    Args:
        features: number of features.
        config: of the perceptron.

    Shape:
        z: (B, features). Output: (B,), in nats.
    """

    def __init__(self, features: int, config: TableCriticConfig) -> None:
        super().__init__()
        self.cap = config.cap
        self.net = _perceptron(features, 1, config.width, config.depth).float()

    def forward(self, z: Tensor) -> Tensor:
        """Returns the tilt."""
        return capped(self.net(z).squeeze(1), self.cap)

    @property
    def bound(self) -> float:
        """The least upper bound of the tilt, in nats."""
        return least_upper_bound(self.cap)


class TableCoordinates(Layer):
    """The last layer of a table's flow, from normal columns to the data's own; and what a tilt looks at.

    Data are float64, because neighbouring values of a column may be one number in float32; normal columns are float32,
    as the networks' weights.

    Args:
        marginal: from standardised columns to normal ones, by its inverse.
        shift: (D,) float64, of the data.
        scale: (D,) float64.
        steps: (D,) of the lattices of discrete columns; 0: continuous.
        offsets: (D,) points of the lattices.

    Shape:
        t: (B, D). Output: x, (B, D) float64, and ladj (B,) float64, in nats.
    """

    shift: Tensor
    scale: Tensor
    steps: Tensor
    offsets: Tensor

    def __init__(
        self,
        marginal: Marginal,
        shift: Tensor,
        scale: Tensor,
        steps: Sequence[float],
        offsets: Sequence[float],
    ) -> None:
        super().__init__()
        self.marginal = marginal
        self.register_buffer("shift", shift.double())
        self.register_buffer("scale", scale.double())
        self.register_buffer("steps", torch.tensor(steps, dtype=torch.float64))
        self.register_buffer("offsets", torch.tensor(offsets, dtype=torch.float64))
        self._discrete = [j for j, step in enumerate(steps) if step > 0]

    @property
    def features(self) -> int:
        """How many features a row has: D, and one more for each discrete column."""
        return len(self.steps) + len(self._discrete)

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns rows in the data's units, and the log-determinant."""
        u, ladj = self.marginal(t.double())
        return u * self.scale + self.shift, ladj + self.scale.log().sum()

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns normal columns, and the log-determinant of the way back."""
        t, ladj = self.marginal.inverse((x.double() - self.shift) / self.scale)
        return t.clamp(-_FARTHEST, _FARTHEST).float(), ladj - self.scale.log().sum()

    def normal(self, x: Tensor) -> Tensor:
        """Normal columns of rows x, (B, D), in the data's units: (B, D)."""
        return self.inverse(x)[0]

    def look(self, x: Tensor, normal: Tensor | None = None) -> Tensor:
        """What a tilt looks at in rows x, (B, D): the normal columns and the centres of their cells, (B, features).

        Within a cell the data are uniform; a centre tells the cell apart where normal columns hardly differ.

        Args:
            x: rows, in the data's units.
            normal: their normal columns where they are known already, (B, D).
        """
        seen = [self.normal(x) if normal is None else normal]
        if self._discrete:
            steps = torch.where(self.steps > 0, self.steps, 1.0)  # a division by 0 would make gradients NaN
            points = ((x - self.offsets) / steps).round() * steps + self.offsets
            centres = torch.where(self.steps > 0, points, x.double())
            seen.append(self.normal(centres)[:, self._discrete])
        return torch.cat(seen, dim=1).asinh()


class TiltedTable(nn.Module):
    """The critic of a table: the density of a flow, tilted, `f(x) = tilt(z(x)) + log q(x)`.

    Args:
        tilt: of standardised features.
        coordinates: that give the features.
        tilted: the flow of density q, in the data's units.
        mean: (features,) of the features.
        scale: (features,) their standard deviation.

    Shape:
        x: (B, D). Output: (B,), in nats.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self, tilt: CappedTilt, coordinates: TableCoordinates, tilted: OneWayFlow, mean: Tensor, scale: Tensor
    ) -> None:
        super().__init__()
        self.tilt, self.coordinates, self.tilted = tilt, coordinates, tilted
        self.register_buffer("mean", mean.clone())
        self.register_buffer("scale", scale.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Returns f(x)."""
        return self.log_tilt(x).double() + self.tilted.log_prob(x)

    def log_tilt(self, x: Tensor) -> Tensor:
        """Returns log of the unnormalised weight f(x) - log q(x), which has the bound `tilt.bound`."""
        return self.tilt(standardized(self.coordinates.look(x), self.mean, self.scale))


def standardized(features: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Features, (B, n), of mean 0 and standard deviation 1, cut off at 8 of it."""
    return ((features - mean) / scale).clamp(-8, 8)


def table_density(
    tilt: CappedTilt, generator: OneWayFlow, coordinates: TableCoordinates, mean: Tensor, scale: Tensor
) -> DensityModel:
    """Joins a tilt and a generator of normal columns into a density in the data's own units.

    Args:
        tilt: of standardised features.
        generator: from `table_generator`.
        coordinates: of the table.
        mean: (features,) by which features are standardised.
        scale: (features,) likewise.
    """

    def in_data_units() -> OneWayFlow:
        flow = copy.deepcopy(generator)  # because a file cannot hold a tensor twice
        return OneWayFlow(flow.base, [*flow.layers, copy.deepcopy(coordinates)])

    return DensityModel(TiltedTable(tilt, coordinates, in_data_units(), mean, scale), in_data_units())


def _perceptron(ins: int, outs: int, width: int, depth: int, dropout: float = 0.0) -> MixedSequential:
    """With a last layer of zeros, so that it says nothing at first."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(ins, width), nn.SiLU()]
        layers += [nn.Dropout(dropout)] if dropout else []
        ins = width
    last = nn.Linear(ins, outs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return MixedSequential(*layers, last)
