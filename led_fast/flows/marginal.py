"""The marginal layer: every feature's histogram to a standard normal, fitted and not trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from led_fast.flows.contract import Layer, check_features, check_positive, log_dtype, sum_event

_MAX_LEVELS = 256  # more values than that are no histogram of their own
_MAX_QUANTILES = 64
_ROWS_A_CELL = 20
_OFF_LATTICE = 1e-3  # of a step: far above rounding, far below what anybody would call on the lattice
_LOG_2PI = math.log(2 * math.pi)


class Marginal(Layer):
    """Normal features into the units of data, each by the histogram of its own column; a flow's last layer but units.

    For feature j with edges e_0 < … < e_K and the shares F_0 < … < F_K of the data below them,
    `u = F^{-1}(Φ(t))`, F linear between edges: within each cell the density is uniform where t is standard normal.
    Beyond the outer edges u is linear in t, so that u has normal tails. Where features are independent, u has the
    density of the histograms; a flow before this layer has to learn only how they depend on each other. This is the
    first step of Gaussianisation (Chen and Gopinath 2000, "Gaussianization"; Laparra et al. 2011).

    It computes in float64 and keeps its buffers so, whatever dtype the module is converted to, because neighbouring
    edges may be one number in float32.

    Args:
        features: number D of features; of images their channels, all pixels pooled.
        cells: most cells K that a feature has. Features with fewer repeat their last edge.

    Attributes:
        edges: edges of the cells in u, ascending, (D, K + 1), float64.
        knots: the same in t, `Φ^{-1}(F_k)`, (D, K + 1), float64.
        slopes: du/dt below the first edge and above the last, (D, 2), float64.

    Until `fit` or `load_state_dict` it is close to the identity.

    Shape:
        t: (B, D, ...). Output: the same, of t's dtype, and ladj (B,) in nats.

    Example:
        >>> import torch
        >>> from led_fast import flows
        >>> column = torch.tensor([[0.0], [0.0], [0.0], [1.0]]).double()
        >>> layer = flows.Marginal.fit(column, steps=[1.0])
        >>> layer.edges
        tensor([[-0.5000,  0.5000,  1.5000]], dtype=torch.float64)
        >>> flow = flows.OneWayFlow(flows.StandardNormal(1), [layer])
        >>> flow.log_prob(column[2:]).exp()  # (3 + ½) / 5 and (1 + ½) / 5, less 1/5 for the tails
        tensor([0.5600, 0.2400], dtype=torch.float64)
    """

    edges: Tensor
    knots: Tensor
    slopes: Tensor

    def __init__(self, features: int, cells: int) -> None:
        super().__init__()
        check_positive("Marginal", features=features, cells=cells)
        knots = torch.linspace(-3, 3, cells + 1, dtype=torch.float64).repeat(features, 1)
        self.register_buffer("edges", knots.clone())
        self.register_buffer("knots", knots)
        self.register_buffer("slopes", torch.ones(features, 2, dtype=torch.float64))

    @classmethod
    @torch.no_grad()
    def fit(cls, u: Tensor, steps: Sequence[float] | Tensor | None = None) -> Marginal:
        """The layer of given data.

        A feature on a lattice of at most 256 values has a cell of one step around each value (and one for each gap
        between them). Any other has up to 64 cells of equally many rows; a value that alone fills one gets a cell of
        its own. Edges lie midway between values. With n rows and K cells a cell of c rows has the share
        `(c + ½) / (n + K / 2)` (Krichevsky and Trofimov) of what the tails leave, each of them `½ / (n + 1)`.
        A tail's slope is such that its mean length is about half of the outermost cell, or of the outermost 64th of
        the rows where cells are finer.

        Args:
            u: data, (n, D) or (n, D, H, W), floating point; lattice values as they are, without noise.
            steps: of the lattice of each feature, in units of u; 0 for a continuous one. Default: all 0.

        Raises:
            TypeError: u is no floating-point tensor.
            ValueError: u has another shape, fewer than two rows, values that are not finite, a feature of one value or
                beyond the range of float64; or steps are not one for each feature, or u is not on their lattice.
        """
        _check_data(u)
        features = u.shape[1]
        found = [
            _fit_column(u[:, j].flatten().double(), step, j)
            for j, step in enumerate(_steps_of(steps, features))
        ]
        cells = max(len(column.edges) for column in found) - 1
        layer = cls(features, cells).to(u.device)
        for j, column in enumerate(found):
            for name, value in column._asdict().items():
                row = getattr(layer, name)[j]
                row.fill_(value[-1])
                row[: len(value)] = value
        return layer

    @property
    def features(self) -> int:
        """Number D of features."""
        return self.edges.shape[0]

    @property
    def cells(self) -> int:
        """Most cells K that a feature has."""
        return self.edges.shape[1] - 1

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (u, Σ log du/dt)."""
        check_features("Marginal", t, self.features)
        value = _by_feature(t)
        piece = self._pieces(value, self.knots)
        out = piece.edge + (piece.place(value) - piece.start) * piece.rate
        return _as_sample(out, t), self._ladj(piece, value, t)

    def inverse(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (t, -Σ log du/dt) of data u."""
        check_features("Marginal", t, self.features)
        value = _by_feature(t)
        piece = self._pieces(value, self.edges)
        back = piece.value(piece.start + (value - piece.edge) / piece.rate)
        return _as_sample(back, t), -self._ladj(piece, back, t)

    def forward_with_score(self, t: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Layer`: the Jacobian is diagonal."""
        out, ladj = self(t)
        with torch.no_grad():
            value = _by_feature(t)
            piece = self._pieces(value, self.knots)
            # log du/dt is that of the normal density and a constant, so that its derivative is -t.
            pulled = _by_feature(score) + torch.where(piece.beyond, 0.0, value)
            return out, ladj, _as_sample(pulled / piece.log_slope(value).exp(), score)

    def _pieces(self, value: Tensor, bounds: Tensor) -> _Piece:
        """The piece of the map that each value, (D, N), falls into."""
        index = torch.searchsorted(bounds.double(), value.detach(), right=True)
        tables = _tables(self.edges.double(), self.knots.double(), self.slopes.double())
        beyond = (index == 0) | (index == bounds.shape[1])
        beyond = beyond & ~value.isnan()  # a NaN has no density
        edge, start, rate, log_rate = (table.gather(1, index) for table in tables)
        return _Piece(edge, start, rate, log_rate, beyond)

    @staticmethod
    def _ladj(piece: _Piece, value: Tensor, t: Tensor) -> Tensor:
        of_feature = piece.log_slope(value).view(t.movedim(1, 0).shape)
        return sum_event(of_feature.movedim(0, 1)).to(log_dtype(t))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Marginal:
        def without_dtype(buffer: Tensor) -> Tensor:
            moved = fn(buffer)
            return moved if moved.dtype == buffer.dtype else buffer.to(moved.device)

        return super()._apply(without_dtype, recurse)


class _Piece(NamedTuple):
    """What the map is around each value: `place(u) = start + (u - edge) / rate`.

    Within a cell the place is the share of a normal distribution on one side of t, the side where less of it is left
    in the cell: shares close to 1 have no digits for what is left. There the rate is negative where that is the upper
    side. Beyond the outer edges the place is t itself.
    """

    edge: Tensor
    start: Tensor
    rate: Tensor
    log_rate: Tensor
    beyond: Tensor

    def place(self, t: Tensor) -> Tensor:
        # What is not wanted is replaced before the function as well, so that none of its derivatives is NaN.
        inside = torch.where(self.beyond, 0.0, t)
        return torch.where(self.beyond, t, _normal_cdf(self.rate.sign() * inside))

    def value(self, place: Tensor) -> Tensor:
        """t of a place."""
        inside = torch.where(self.beyond, 0.5, place)
        return torch.where(self.beyond, place, self.rate.sign() * torch.special.ndtri(inside))

    def log_slope(self, t: Tensor) -> Tensor:
        """log du/dt."""
        inside = torch.where(self.beyond, 0.0, t)
        return self.log_rate + torch.where(self.beyond, 0.0, -0.5 * inside.square() - 0.5 * _LOG_2PI)


def _tables(edges: Tensor, knots: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Edge, start, rate and log|rate| of all pieces: the lower tail, each cell, the upper tail, (D, K + 2) each.

    Those of repeated edges mean nothing, and no value falls into them.
    """
    lower, upper = knots[:, :-1], knots[:, 1:]
    sign = torch.where(lower + upper > 0, -1.0, 1.0).to(knots)
    nearer = torch.where(sign < 0, upper, lower)
    mass = (_normal_cdf(sign * upper) - _normal_cdf(sign * lower)).abs()
    rate = sign * (edges[:, 1:] - edges[:, :-1]) / mass

    def with_tails(cells: Tensor, ends: Tensor) -> Tensor:
        return torch.cat([ends[:, :1], cells, ends[:, -1:]], dim=1)

    rate = with_tails(rate, slopes)
    edge = with_tails(torch.where(sign < 0, edges[:, 1:], edges[:, :-1]), edges)
    return edge, with_tails(_normal_cdf(sign * nearer), knots), rate, rate.abs().log()


def _normal_cdf(t: Tensor) -> Tensor:
    """Φ(t), exact to rounding where it is small; `torch.special.ndtr` is not."""
    return 0.5 * torch.special.erfc(-math.sqrt(0.5) * t)


def _by_feature(t: Tensor) -> Tensor:
    """(B, D, ...) -> (D, N), float64."""
    return t.double().movedim(1, 0).flatten(1).contiguous()


def _as_sample(value: Tensor, t: Tensor) -> Tensor:
    """(D, N) -> t's shape and dtype. A copy, because the caller may change it in place."""
    value = value.view(t.movedim(1, 0).shape).movedim(0, 1)
    return value.to(t.dtype, copy=True, memory_format=torch.contiguous_format)


# ---- the fit ---------------------------------------------------------------------------------------------


class _Column(NamedTuple):
    """The buffers of one feature."""

    edges: Tensor
    knots: Tensor
    slopes: Tensor


def _fit_column(values: Tensor, step: float, feature: int) -> _Column:
    """The histogram of one column, (n,) float64."""
    if not values.isfinite().all():
        row = int((~values.isfinite()).nonzero()[0])
        raise ValueError(
            f"Marginal.fit: u must be finite, got {values[row].item()} in feature {feature}, value {row}"
        )
    distinct, counts = values.unique(return_counts=True)
    if step > 0:
        distinct, counts = _on_lattice(distinct, counts, step, feature)
    if len(distinct) < 2:
        raise ValueError(
            f"Marginal.fit: feature {feature} must take two values or more, got {distinct.item()} in every row"
        )
    if step > 0:
        lower, upper = distinct - step / 2, distinct + step / 2
    else:
        half = distinct.diff() / 2
        between = distinct[:-1] + half
        lower = torch.cat([distinct[:1] - half[:1], between])
        upper = torch.cat([between, distinct[-1:] + half[-1:]])
    quantiles = min(_MAX_QUANTILES, max(4, len(values) // _ROWS_A_CELL))
    if step > 0 and len(distinct) <= _MAX_LEVELS:
        edges = torch.cat([lower, upper]).unique()
    else:
        edges = _quantiles(lower, upper, counts, quantiles)
    cell = torch.searchsorted(edges[1:-1].contiguous(), distinct, right=True)
    rows = torch.zeros(len(edges) - 1, dtype=torch.float64, device=values.device).index_add_(
        0, cell, counts.double()
    )
    knots = _knots(rows)

    # The border below the uppermost rows, and above the lowest, as many as a quantile cell holds.
    below = counts.cumsum(0)
    tail = -(-len(values) // quantiles)
    first = torch.searchsorted(below, torch.tensor([tail, len(values) - tail + 1], device=below.device))
    spans = torch.stack([upper[first[0]] - edges[0], edges[-1] - lower[first[1]]])
    # Normal tails are 1 / |t| long beyond t; a tail too short costs more where data are than one too long.
    slopes = spans * (knots[[0, -1]].abs() / 2).clamp(min=1.0)
    most = 6 * len(values) + 3 * len(rows)  # du/dF of a cell that is 1 wide is at most that
    if not torch.cat([edges, most * edges.diff(), slopes]).isfinite().all():
        raise ValueError(f"Marginal.fit: feature {feature} spans more than float64 holds")
    return _Column(edges, knots, slopes)


def _on_lattice(distinct: Tensor, counts: Tensor, step: float, feature: int) -> tuple[Tensor, Tensor]:
    """Values of a lattice and their counts, those merged that differ by rounding alone."""
    level = (distinct - distinct[0]) / step
    nearest = level.round()
    on = (level - nearest).abs() <= _OFF_LATTICE
    if not on.all():
        raise ValueError(
            f"Marginal.fit: feature {feature} must lie on a lattice of step {step:g}, "
            f"got {distinct[0].item():g} and {distinct[~on][0].item():g}"
        )
    level, group = nearest.unique(return_inverse=True)
    centre = distinct[0] + level * step
    if not (centre + step / 2 > centre - step / 2).all():
        raise ValueError(
            f"Marginal.fit: step {step:g} of feature {feature} is lost in the rounding of its values"
        )
    return centre, counts.new_zeros(len(level)).index_add_(0, group, counts)


def _quantiles(lower: Tensor, upper: Tensor, counts: Tensor, cells: int) -> Tensor:
    """Edges of cells of equally many rows, none of which cuts a value; a value that fills one has its own."""
    rows = counts.sum()
    wanted = torch.arange(1, cells, device=counts.device) * rows / cells
    ends = torch.searchsorted(counts.cumsum(0).double(), wanted.double())
    heavy = counts * cells >= rows
    return torch.cat([lower[:1], lower[heavy], upper[heavy], upper[ends], upper[-1:]]).unique()


def _knots(rows: Tensor) -> Tensor:
    """Φ^{-1} of the smoothed shares below each edge; each from its nearer tail, which alone has all digits."""
    n, cells = rows.sum(), len(rows)
    tail = (0.5 / (n + 1)).view(1)
    shares = (rows + 0.5) / (n + cells / 2) * (1 - 2 * tail)
    below = torch.cat([tail, shares]).cumsum(0)
    above = torch.cat([shares, tail]).flip(0).cumsum(0).flip(0)
    return torch.where(below < above, torch.special.ndtri(below), -torch.special.ndtri(above))


def _check_data(u: Tensor) -> None:
    if not u.is_floating_point():
        raise TypeError(f"Marginal.fit: u must be a floating-point tensor, got {u.dtype}")
    if u.dim() not in (2, 4) or u.shape[1] == 0:
        raise ValueError(f"Marginal.fit: u must have shape (n, D) or (n, D, H, W), got {tuple(u.shape)}")
    if u[:, 0].numel() < 2:
        raise ValueError(f"Marginal.fit: u must have two rows or more, got shape {tuple(u.shape)}")


def _steps_of(steps: Sequence[float] | Tensor | None, features: int) -> list[float]:
    found = [0.0] * features if steps is None else torch.as_tensor(steps, dtype=torch.float64).tolist()
    if not isinstance(found, list) or len(found) != features:
        raise ValueError(f"Marginal.fit: steps must be one for each of {features} features, got {steps}")
    if not all(0 <= step < math.inf for step in found):
        raise ValueError(f"Marginal.fit: steps must be finite and not negative, got {found}")
    return found
