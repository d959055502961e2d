"""Columns of every kind, and marginal layers that were fitted to them."""

import torch

from led_fast.flows import Marginal, OneWayFlow, StandardNormal

N = 3000


def column(kind: str, n: int = N) -> tuple[torch.Tensor, float]:
    """A column and its step, always the same."""
    g = torch.Generator().manual_seed(7)
    normal = torch.randn(n, generator=g, dtype=torch.float64)
    return {
        "normal": (normal, 0.0),
        "lognormal": ((1.5 * normal).exp(), 0.0),
        "uniform": (torch.rand(n, generator=g, dtype=torch.float64), 0.0),
        "atoms": (normal.clamp(-0.5, 1.0), 0.0),
        "integers": ((3 * normal).round(), 1.0),
        "two values": ((normal > 1.5).double(), 1.0),
        "gaps": ((2 * normal.round() ** 3), 0.25),
        "many levels": ((500 * normal).round() / 8, 0.125),
    }[kind]


KINDS = ["normal", "lognormal", "uniform", "atoms", "integers", "two values", "gaps", "many levels"]


def fitted(*kinds: str) -> tuple[Marginal, torch.Tensor]:
    columns, steps = zip(*(column(kind) for kind in kinds), strict=True)
    u = torch.stack(columns, dim=1)
    return Marginal.fit(u, steps), u


def cells_of(layer: Marginal, feature: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Edges and knots of one feature without those repeated."""
    kept = layer.edges[feature].diff().ne(0).nonzero().max() + 2
    return layer.edges[feature, :kept], layer.knots[feature, :kept]


def density_of(layer: Marginal) -> OneWayFlow:
    return OneWayFlow(StandardNormal(layer.features).double(), [layer])
