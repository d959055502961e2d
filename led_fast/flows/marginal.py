"""The marginal layer: every feature's histogram to a standard normal, fitted and not trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from led_fast.flows.contract import Layer, check_features, check_positive, log_dtype, normal_cdf, sum_event

_MAX_LEVELS = 256  # more values than that are no histogram of their own
_MAX_QUANTILES = 64
_ROWS_A_CELL = 20
_LEAST_ROWS = 4  # of the outermost quantiles
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

        A feature on a lattice of at most 256 values, even of one, has a cell of one step around each value (and one
        for each gap between them). Any other has up to 64 cells of equally many rows, the outermost of which are cut
        further; a value that alone fills one gets a cell of its own. Edges lie midway between values. With n rows and
        K cells a cell of c rows has the share `(c + ½) / (n + K / 2)` (Krichevsky and Trofimov) of what the tails
        leave, each of them `½ / (n + 1)`. A tail's slope is such that its mean length is about half of what the
        outermost 64th of the rows spans.

        Args:
            u: data, (n, D) or (n, D, H, W), floating point; lattice values as they are, without noise.
            steps: of the lattice of each feature, in units of u; 0 for a continuous one. Default: all 0.

        Raises:
            TypeError: u is no floating-point tensor.
            ValueError: u has another shape, fewer than two rows, values that are not finite, a continuous feature of
                one value, one beyond the range of float64; or steps are not one for each feature, or u is not on their
                lattice.
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
        out, log_slope, _ = self._forward(t)
        return _as_sample(out, t), _summed(log_slope, t)

    def inverse(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (t, -Σ log du/dt) of data u."""
        check_features("Marginal", t, self.features)
        value = _by_feature(t)
        piece = self._pieces(value, self.edges)
        place = piece.start + (value - piece.edge) / piece.rate
        # What is not wanted is replaced before ndtri as well, so that none of its derivatives is NaN.
        normal = torch.special.ndtri(torch.where(piece.beyond, 0.5, place))
        back = torch.where(piece.beyond, place, piece.side * normal)
        return _as_sample(back, t), -_summed(piece.log_slope(piece.within(back)), t)

    def forward_with_score(self, t: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Layer`: the Jacobian is diagonal."""
        out, log_slope, within = self._forward(t)
        with torch.no_grad():
            # Within a cell log du/dt is that of the normal density and a constant, so that its derivative is -t.
            carried = (_by_feature(score) + within) / log_slope.exp()
        return _as_sample(out, t), _summed(log_slope, t), _as_sample(carried, score)

    def _forward(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """u, log du/dt and t where it is in a cell, (D, N) each."""
        check_features("Marginal", t, self.features)
        value = _by_feature(t)
        piece = self._pieces(value, self.knots)
        within = piece.within(value)
        place = torch.where(piece.beyond, value, normal_cdf(piece.side * within))
        return torch.addcmul(piece.edge, place - piece.start, piece.rate), piece.log_slope(within), within

    def _pieces(self, value: Tensor, bounds: Tensor) -> _Piece:
        """The piece of the map that each value, (D, N), falls into."""
        bounds, fixed = bounds.double(), value.detach()
        index = torch.searchsorted(bounds, fixed, right=True)
        edge, start, rate, log_rate, side = (
            table.gather(1, index)
            for table in _tables(self.edges.double(), self.knots.double(), self.slopes.double())
        )
        beyond = (fixed < bounds[:, :1]) | (fixed >= bounds[:, -1:])  # not of NaN, which has no density
        return _Piece(edge, start, rate, log_rate, side, beyond)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Marginal:
        def without_dtype(buffer: Tensor) -> Tensor:
            moved = fn(buffer)
            return moved if moved.dtype == buffer.dtype else buffer.to(moved.device)

        return super()._apply(without_dtype, recurse)


class _Piece(NamedTuple):
    """The piece of the map around each value, `u = edge + (place - start) rate`.

    In a cell, place is the share of a normal distribution below t, or above it in cells whose upper end is the farther
    one: of shares close to 1 the digits are lost that tell how close. Beyond the outer edges, place is t itself.

    Attributes:
        edge: edge of the cell on the side of its tail.
        start: place of that edge.
        rate: du by d place.
        log_rate: log du/dt without the -t² / 2 of cells.
        side: 1 where place counts from below, -1 from above.
        beyond: whether it is one of the two outer pieces.
    """

    edge: Tensor
    start: Tensor
    rate: Tensor
    log_rate: Tensor
    side: Tensor
    beyond: Tensor

    def within(self, t: Tensor) -> Tensor:
        """t in the cells, 0 beyond."""
        return torch.where(self.beyond, 0.0, t)

    def log_slope(self, within: Tensor) -> Tensor:
        """log du/dt."""
        return torch.addcmul(self.log_rate, within, within, value=-0.5)


def _tables(edges: Tensor, knots: Tensor, slopes: Tensor) -> tuple[Tensor, ...]:
    """The tensors of `_Piece` but the last for all pieces: the lower tail, each cell, the upper tail, (D, K + 2) each.

    Those of repeated edges mean nothing, and no value falls into them.
    """
    lower, upper = knots[:, :-1], knots[:, 1:]
    from_above = lower + upper > 0
    side = torch.where(from_above, -1.0, 1.0).to(knots)
    mass = (normal_cdf(side * upper) - normal_cdf(side * lower)).abs()
    slope = (edges[:, 1:] - edges[:, :-1]) / mass

    def with_tails(cells: Tensor, ends: Tensor) -> Tensor:
        return torch.cat([ends[:, :1], cells, ends[:, -1:]], dim=1)

    return (
        with_tails(torch.where(from_above, edges[:, 1:], edges[:, :-1]), edges),
        with_tails(normal_cdf(side * torch.where(from_above, upper, lower)), knots),
        with_tails(side * slope, slopes),
        with_tails(slope.log() - 0.5 * _LOG_2PI, slopes.log()),
        with_tails(side, torch.ones_like(slopes)),
    )


def _by_feature(t: Tensor) -> Tensor:
    """(B, D, ...) -> (D, N), float64."""
    return t.double().movedim(1, 0).flatten(1).contiguous()


def _as_sample(value: Tensor, t: Tensor) -> Tensor:
    """(D, N) -> t's shape and dtype. A copy, because the caller may change it in place."""
    value = value.view(t.movedim(1, 0).shape).movedim(0, 1)
    return value.to(t.dtype, copy=True, memory_format=torch.contiguous_format)


def _summed(log_slope: Tensor, t: Tensor) -> Tensor:
    """(D, N) -> (B,), of the dtype of log-determinants of t."""
    return sum_event(log_slope.sum(0).view(t.movedim(1, 0).shape[1:])).to(log_dtype(t))


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
        level, counts = _levels(distinct, counts, step, feature)
        # Of the level ± ½, so that two neighbours have the same border to the last digit.
        first = distinct[0]
        distinct, lower, upper = (first + (level + off) * step for off in (0.0, -0.5, 0.5))
        if not (lower < upper).all():
            raise ValueError(
                f"Marginal.fit: steps must not vanish in rounding, got {step:g} for feature {feature}"
            )
    if len(distinct) < 2 and step == 0:
        raise ValueError(
            f"Marginal.fit: u must take two values or more in feature {feature}, got {distinct.item()} in every row"
        )
    if step == 0:
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
    ends = torch.searchsorted(below, torch.tensor([tail, len(values) - tail + 1], device=below.device))
    spans = torch.stack([upper[ends[0]] - edges[0], edges[-1] - lower[ends[1]]])
    # Between neighbouring floats is no number for a border.
    spans = torch.where(spans > 0, spans, edges.diff()[[0, -1]])
    # Normal tails are 1 / |t| long beyond t; a tail too short costs more where data are than one too long.
    slopes = spans * (knots[[0, -1]].abs() / 2).clamp(min=1.0)
    most = 6 * len(values) + 3 * len(rows)  # du/dF of a cell that is 1 wide is at most that
    if not torch.cat([edges, most * edges.diff(), slopes]).isfinite().all():
        raise ValueError(
            f"Marginal.fit: u must span no more than float64 holds, got more in feature {feature}"
        )
    return _Column(edges, knots, slopes)


def _levels(distinct: Tensor, counts: Tensor, step: float, feature: int) -> tuple[Tensor, Tensor]:
    """How many steps each value of a lattice is from the first, and its count; those merged that differ by rounding."""
    level = (distinct - distinct[0]) / step
    nearest = level.round()
    on = (level - nearest).abs() <= _OFF_LATTICE
    if not on.all():
        raise ValueError(
            f"Marginal.fit: u must lie on a lattice of step {step:g} in feature {feature}, "
            f"got {distinct[0].item():g} and {distinct[~on][0].item():g}"
        )
    level, group = nearest.unique(return_inverse=True)
    return level, counts.new_zeros(len(level)).index_add_(0, group, counts)


def _quantiles(lower: Tensor, upper: Tensor, counts: Tensor, cells: int) -> Tensor:
    """Edges of cells of equally many rows, none of which cuts a value; a value that fills one has its own.

    The outermost ones are cut at a quarter of their rows, and that again, because densities fall off there.
    """
    rows = int(counts.sum())
    share = rows / cells
    wanted = [share * k for k in range(1, cells)]
    while (share := share / 4) >= _LEAST_ROWS:
        wanted += [share, rows - share]
    below = counts.cumsum(0).double()
    ends = torch.searchsorted(below, torch.tensor(wanted, dtype=torch.float64, device=counts.device))
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
    if not isinstance(u, Tensor) or not u.is_floating_point():
        found = u.dtype if isinstance(u, Tensor) else type(u).__name__
        raise TypeError(f"Marginal.fit: u must be a floating-point tensor, got {found}")
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
