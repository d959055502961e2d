"""The log-normaliser on the plane by adaptive quadrature: what sampled estimates are held against."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from led_fast.density.mode import eval_mode

MAX_EDGE_SHARE = 1e-3  # of the mass, in the outermost cells
MAX_ERROR = 0.01  # nats; a quadrature that did not converge judges nothing


class QuadratureEstimate(NamedTuple):
    """Log of an integral over a box, in nats.

    Attributes:
        value: log of the integral.
        error: estimated relative error of the integral, which is the absolute error of `value`.
        edge_share: share of the integral in the outermost cells; where it is not negligible, the box cuts
            mass off.
        evaluations: number of points at which the density was evaluated.
    """

    value: float
    error: float
    edge_share: float
    evaluations: int

    @property
    def ci95(self) -> tuple[float, float]:
        """The value, less and plus its error."""
        return self.value - self.error, self.value + self.error

    @property
    def reliable(self) -> bool:
        """Whether it has converged, and seen the whole mass."""
        return not self.reason

    @property
    def reason(self) -> str:
        """Why it is not reliable; empty where it is."""
        objections = []
        if not math.isfinite(self.value):
            objections.append("quadrature is not finite")
        if not self.error <= MAX_ERROR:
            objections.append(f"quadrature has an error of {self.error:.2g} nats")
        if not self.edge_share <= MAX_EDGE_SHARE:
            objections.append(f"{self.edge_share:.1%} of the mass lies at the edge of the quadrature's box")
        return "; ".join(objections)

    def to_json(self) -> dict[str, Any]:
        """Its fields and properties, by name."""
        return {
            **self._asdict(),
            "ci95": self.ci95,
            "reliable": self.reliable,
            "reason": self.reason,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> QuadratureEstimate:
        """The inverse of `to_json`; None is NaN."""
        value, error, edge_share = (
            math.nan if values[name] is None else values[name] for name in ("value", "error", "edge_share")
        )
        return cls(value, error, edge_share, values["evaluations"])


@torch.no_grad()
def quadrature_log_normalizer(
    log_density: Callable[[Tensor], Tensor],
    low: tuple[float, float],
    high: tuple[float, float],
    tolerance: float = 1e-4,
    cells: int = 128,
    max_evaluations: int = 4_000_000,
) -> QuadratureEstimate:
    """Integrates exp(log_density) over a box of the plane by adaptive refinement.

    Each cell takes the 3x3 Gauss-Legendre rule. Its distance from the rules that take the midpoint along one
    side bounds its error. The cells that hold the largest errors are quartered until what remains is below
    `tolerance`; in the first round so is, with its neighbours, every cell that peaks over its neighbours,
    however little mass it seems to hold, since a narrow mode may lie between nodes. A mode is found when its
    standard deviation is at least a sixth of a first cell's side; raise `cells` for narrower ones.

    Args:
        log_density: (n, 2) -> (n,). A module is called in its own dtype and on its own device, any other
            callable in torch's default dtype; sums are in fp64.
        low: lower corner (x, y) of the box.
        high: upper corner.
        tolerance: wanted relative error.
        cells: number of first cells along each side.
        max_evaluations: refinement stops here, whatever `error` is then.

    Example:
        >>> from led_fast.density import quadrature_log_normalizer
        >>> estimate = quadrature_log_normalizer(lambda y: -y.square().sum(1) / 2, (-9, -9), (9, 9))
        >>> round(estimate.value, 4), estimate.reliable  # log 2π
        (1.8379, True)
    """
    corner, far = torch.tensor([low, high], dtype=torch.float64, device="cpu")
    if corner.shape != (2,) or not bool((far > corner).all()):
        raise ValueError(
            f"quadrature_log_normalizer: low and high must be corners in the plane, low < high, got {low} and {high}"
        )
    first_side = (far - corner) / cells
    steps = torch.arange(cells, dtype=torch.float64, device="cpu") + 0.5
    centers = corner + first_side * torch.cartesian_prod(steps, steps)
    partition = _integrate(log_density, centers, first_side.expand_as(centers))
    evaluations = len(_NODES) * len(centers)
    refine = _peaks(partition.log_mass.view(cells, cells)) | _worst(partition, tolerance)
    while bool(refine.any()) and evaluations < max_evaluations:
        children = _integrate(log_density, *_quarters(partition.centers[refine], partition.sides[refine]))
        evaluations += len(_NODES) * len(children.centers)
        partition = _Cells(
            *(torch.cat([old[~refine], new]) for old, new in zip(partition, children, strict=True))
        )
        refine = _worst(partition, tolerance)

    value = partition.log_mass.logsumexp(0)
    depth = torch.minimum(partition.centers - corner, far - partition.centers)
    edge_share = (partition.log_mass[(depth < first_side).any(dim=1)].logsumexp(0) - value).exp()
    return QuadratureEstimate(float(value), float(_errors(partition).sum()), float(edge_share), evaluations)


class _Cells(NamedTuple):
    """A partition of the box.

    Attributes:
        centers: (n, 2).
        sides: (n, 2).
        log_mass: log of each cell's integral by the Gauss rule, (n,).
        log_midpoints: the same with the midpoint rule along x, along y, (n, 2).
    """

    centers: Tensor
    sides: Tensor
    log_mass: Tensor
    log_midpoints: Tensor


def _on_host(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device="cpu")


_NODES_1D = _on_host(0.0, -math.sqrt(0.15), math.sqrt(0.15))  # in units of a side
_LOG_WEIGHTS_1D = _on_host(4 / 9, 5 / 18, 5 / 18).log()
_NODES = torch.cartesian_prod(_NODES_1D, _NODES_1D)
_QUARTERS = torch.cartesian_prod(_on_host(-0.25, 0.25), _on_host(-0.25, 0.25))


def _integrate(log_density: Callable[[Tensor], Tensor], centers: Tensor, sides: Tensor) -> _Cells:
    points = (centers[:, None] + sides[:, None] * _NODES).flatten(0, 1)
    anchor = next(log_density.parameters(), None) if isinstance(log_density, nn.Module) else None
    points = points.to(anchor if anchor is not None else torch.get_default_dtype())
    with eval_mode(log_density):
        values = torch.cat([log_density(chunk) for chunk in points.split(65_536)])
    values = values.double().cpu().view(-1, 3, 3)  # (cells, nodes of x, nodes of y)
    log_area = sides.log().sum(dim=1)
    along_x = (values + _LOG_WEIGHTS_1D).logsumexp(dim=2)  # the rule over y, at each node of x
    along_y = (values + _LOG_WEIGHTS_1D[:, None]).logsumexp(dim=1)
    log_mass = (along_x + _LOG_WEIGHTS_1D).logsumexp(dim=1)
    log_midpoints = torch.stack([along_x[:, 0], along_y[:, 0]], dim=1)
    return _Cells(centers, sides, log_mass + log_area, log_midpoints + log_area[:, None])


def _errors(cells: _Cells) -> Tensor:
    """Estimated error of every cell, relative to the whole integral."""
    total = cells.log_mass.logsumexp(0)
    mass = (cells.log_mass - total).exp()
    difference = (mass[:, None] - (cells.log_midpoints - total).exp()).abs().sum(dim=1)
    # The difference goes with side², the Gauss rule's error with side⁶: taking side⁴ leaves a margin.
    return difference * (difference / mass).nan_to_num(1.0).clamp(max=1)


def _worst(cells: _Cells, tolerance: float) -> Tensor:
    """Marks the cells with the largest errors, so that what all others hold is at most half the tolerance."""
    ordered, order = _errors(cells).sort()
    return torch.zeros_like(order, dtype=torch.bool).scatter_(0, order, ordered.cumsum(0) > tolerance / 2)


def _peaks(log_mass: Tensor) -> Tensor:
    """Marks the local maxima of a grid (n, n), and their eight neighbours, as a flat mask."""

    def highest_around(x: Tensor) -> Tensor:
        return F.max_pool2d(x[None], kernel_size=3, stride=1, padding=1)[0]

    peaks = (log_mass == highest_around(log_mass)) & (log_mass > -math.inf)
    return highest_around(peaks.double()).flatten() > 0


def _quarters(centers: Tensor, sides: Tensor) -> tuple[Tensor, Tensor]:
    """Splits every cell into four: their centers and sides, (4 n, 2)."""
    quarters = (centers[:, None] + sides[:, None] * _QUARTERS).flatten(0, 1)
    return quarters, (sides / 2).repeat_interleave(4, dim=0)
