"""What the columns of a table are: continuous, on a lattice, or constant.

A column is discrete if more than 1 % of its values are repeats and all of them lie on a lattice of multiples of 10⁻ᵏ,
k ≤ 6; its step is the greatest common divisor of their distances. Its values then stand for cells as wide as a step.
"""

import hashlib
import math
import shlex
from dataclasses import dataclass

import numpy as np

from led_fast.data.tables.table import Table
from led_fast.errors import InputError

_MOST_DECIMALS = 6
_REPEATS = 0.01
_SPIKE = 0.05
_LOOK = 200_000  # rows of the sample in which repeats, spikes and linear dependence are looked for
_SEED = 0
_FEWEST_COUNTED = 20  # rows from which on a column that counts them does so by no chance
_MOST_CELLS = 65_536  # up to which the different values of a discrete column are counted
_FINEST = 64  # spacings of float64 in a step, or noise within it has no room
_FEWEST_VALUES = 65_536  # spacings of float64 in the range of a continuous column


@dataclass(frozen=True)
class Column:
    """A column that is modelled.

    Attributes:
        name: what it is called.
        position: its place in the file's table, counted without ignored columns, constant ones included.
        dtype: "int", "float" or "bool", as the file writes it.
        step: the distance of its lattice's points; 0 where it is continuous.
        offset: a point of the lattice (its lowest value); 0 where it is continuous.
        decimals: how many decimals write the lattice's points exactly; 0 where it is continuous.
        low: its lowest value.
        high: its highest value.
        distinct: how many different values a discrete column has; None beyond 65,536 cells, or where it is continuous.
    """

    name: str
    position: int
    dtype: str
    step: float
    offset: float
    decimals: int
    low: float
    high: float
    distinct: int | None

    @property
    def discrete(self) -> bool:
        """Whether its values lie on a lattice."""
        return self.step > 0


@dataclass(frozen=True)
class Constant:
    """A column that holds one value, and so is not modelled: name, place as in `Column`, type and value."""

    name: str
    position: int
    dtype: str
    value: float


def round_to_lattice(column: Column, values: np.ndarray) -> np.ndarray:
    """The nearest points of a column's lattice between its lowest and highest value, as its file writes them.

    So a rating of 0 to 4 is never 5. A continuous column's values stay as they are.

    Example:
        >>> import numpy as np
        >>> from led_fast.data.tables import describe, round_to_lattice, table_of
        >>> (count,), _, _ = describe(table_of(np.arange(100.0)[:, None] % 7))
        >>> round_to_lattice(count, np.array([2.2, 3.9]))
        array([2., 4.])
    """
    if not column.discrete:
        return values
    values = np.clip(values, column.low, column.high)
    points = column.offset + np.rint((values - column.offset) / column.step) * column.step
    return np.round(points, column.decimals)


def describe(table: Table) -> tuple[tuple[Column, ...], tuple[Constant, ...], tuple[str, ...]]:
    """Finds out what the columns of a table are, in two or three passes over its rows.

    Repeats, spikes and linear dependence are looked for in a fixed sample of 200,000 rows, all else in all rows.

    Returns:
        (the columns to model, the constant ones, notes on what was found).

    Raises:
        InputError: all columns are constant; continuous columns that are equal or linear functions of each other, so
            that there is no density; or values so large that float64 does not resolve their steps.

    Example:
        >>> import numpy as np
        >>> from led_fast.data.tables import describe, table_of
        >>> rng = np.random.default_rng(0)
        >>> rows = np.column_stack([rng.normal(size=500), rng.poisson(4, 500), np.ones(500)])
        >>> columns, constants, notes = describe(table_of(rows, names=["x", "count", "one"]))
        >>> [(column.name, column.step) for column in columns], [constant.name for constant in constants]
        ([('x', 0.0), ('count', 1.0)], ['one'])
    """
    low, high, single, counts, digests = _ranges(table)
    moving = [j for j in range(len(table.names)) if low[j] < high[j]]
    constants = tuple(
        Constant(table.names[j], j, table.dtypes[j], float(low[j]))
        for j in range(len(low))
        if low[j] == high[j]
    )
    if not moving:
        raise InputError(f"{table.place}: every column is constant: there is no density to learn")
    notes = []
    if constants:
        notes.append(
            "constant columns are not modelled: " + ", ".join(f"{c.name} = {c.value:g}" for c in constants)
        )
    notes += [
        f"column {name!r} counts the rows: --ignore {shlex.quote(name)} leaves it out"
        for name, counting in zip(table.names, counts, strict=True)
        if counting and len(table) >= _FEWEST_COUNTED
    ]
    look = table.take(_sample(len(table)))
    repeats = {j: _repeats(look[:, j]) for j in moving}
    lattices = _lattices(table, [j for j in moving if repeats[j][0] > _REPEATS], low, high, single)
    _refuse_unresolved(table, moving, lattices, low, high)
    distinct = _count(table, lattices, low, high)
    columns = []
    for j in moving:
        step, decimals = lattices.get(j, (0.0, 0))
        offset = float(np.round(low[j], decimals)) if step else 0.0
        ends = float(low[j]), float(high[j])
        columns.append(
            Column(table.names[j], j, table.dtypes[j], step, offset, decimals, *ends, distinct.get(j))
        )
    continuous = [column for column in columns if not column.discrete]
    notes += _spikes(continuous, repeats)
    notes += _equal(table, columns, digests)
    _refuse_dependent(table, look, continuous)
    return tuple(columns), constants, tuple(notes)


def is_planar(table: Table) -> bool:
    """Whether a table is exactly two continuous columns, without labels: points in the plane.

    Example:
        >>> import numpy as np
        >>> from led_fast.data.tables import is_planar, table_of
        >>> is_planar(table_of(np.random.default_rng(0).normal(size=(500, 2))))
        True
    """
    if len(table.names) != 2 or table.labels:
        return False
    columns, constants, _ = describe(table)
    return not constants and not any(column.discrete for column in columns)


def _ranges(table: Table) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[bytes]]:
    """(lowest, highest, whether all values are float32, whether it counts the rows, a digest) of each column."""
    low, high = np.full(len(table.names), math.inf), np.full(len(table.names), -math.inf)
    single, counts = np.ones((2, len(table.names)), dtype=bool)
    first = table.take(slice(0, 1))
    digests = [hashlib.blake2b(digest_size=16) for _ in table.names]
    for where, part in table.chunks():
        low, high = np.minimum(low, part.min(0)), np.maximum(high, part.max(0))
        with np.errstate(over="ignore"):
            single &= (part == part.astype(np.float32)).all(0)
        if counts.any():
            counts &= (part == first + np.arange(where.start, where.stop)[:, None]).all(0)
        for digest, column in zip(digests, part.T, strict=True):
            digest.update((column + 0.0).tobytes())  # -0 becomes 0
    return low, high, single, counts, [digest.digest() for digest in digests]


def _sample(rows: int) -> np.ndarray | slice:
    if rows <= _LOOK:
        return slice(0, rows)
    return np.sort(np.random.default_rng(_SEED).integers(rows, size=_LOOK))


def _repeats(values: np.ndarray) -> tuple[float, float, float]:
    """(share of repeats, the most frequent value, its share)."""
    found, counts = np.unique(values, return_counts=True)
    most = int(counts.argmax())
    return 1 - len(found) / len(values), float(found[most]), float(counts[most] / len(values))


# ---- the lattice


def _lattices(
    table: Table, candidates: list[int], low: np.ndarray, high: np.ndarray, single: np.ndarray
) -> dict[int, tuple[float, int]]:
    """(step, decimals) of the candidates that lie on a lattice."""
    units: dict[int, tuple[int, int]] = {j: (0, 0) for j in candidates}  # decimals, greatest common divisor
    for _, part in table.chunks():
        for j in list(units):
            found = _widen(part[:, j], low[j], *units[j], noise=2.0**-23 if single[j] else 2.0**-52)
            if found is None:
                del units[j]
            else:
                units[j] = found
    return {j: (divisor / 10**decimals, decimals) for j, (decimals, divisor) in units.items()}


def _widen(
    values: np.ndarray, origin: float, decimals: int, divisor: int, noise: float
) -> tuple[int, int] | None:
    """(decimals, divisor) of a lattice that holds further values, too; None where there is none.

    A value may be off by the rounding of the type that it was kept in, as 0.1 + 0.2 is.
    """
    first = decimals
    while True:
        points = values * 10.0**decimals
        whole = np.rint(points)
        off = np.abs(points - whole)
        if np.abs(points).max() >= 2.0**62:
            return None
        if (off <= np.minimum(16 * noise * np.abs(points), 0.05)).all():
            break
        decimals += 1
        if decimals > _MOST_DECIMALS:
            return None
    distances = whole.astype(np.int64) - np.int64(np.rint(origin * 10.0**decimals))
    return decimals, math.gcd(divisor * 10 ** (decimals - first), int(np.gcd.reduce(distances)))


def _refuse_unresolved(
    table: Table, moving: list[int], lattices: dict[int, tuple[float, int]], low: np.ndarray, high: np.ndarray
) -> None:
    for j in moving:
        spacing = float(np.spacing(max(abs(low[j]), abs(high[j]))))
        step, spread = lattices.get(j, (0.0, 0))[0], float(high[j]) - float(low[j])
        if step and step < _FINEST * spacing:
            what = f"steps of {step:g}"
        elif not step and spread < _FEWEST_VALUES * spacing:
            what = f"a spread of {spread:g}"
        else:
            continue
        name = table.names[j]
        raise InputError(
            f"{table.place}: column {name!r} has {what} at values of {high[j]:g}, which float64 does not resolve; "
            f"subtract an offset, or leave the column out with --ignore {shlex.quote(name)}"
        )


def _count(
    table: Table, lattices: dict[int, tuple[float, int]], low: np.ndarray, high: np.ndarray
) -> dict[int, int]:
    """How many different values the discrete columns have, where their cells are few enough."""
    cells = {j: round((high[j] - low[j]) / step) + 1 for j, (step, _) in lattices.items()}
    seen = {j: np.zeros(count, dtype=bool) for j, count in cells.items() if count <= _MOST_CELLS}
    for _, part in table.chunks():
        for j, marks in seen.items():
            marks[np.rint((part[:, j] - low[j]) / lattices[j][0]).astype(np.int64)] = True
    return {j: int(marks.sum()) for j, marks in seen.items()}


# ---- what has no density


def _spikes(continuous: list[Column], repeats: dict[int, tuple[float, float, float]]) -> list[str]:
    return [
        f"column {c.name} is continuous, but {share:.0%} of its rows are exactly {value:g}: such a spike has no "
        f"density, so likelihoods depend on how narrow the model makes it; --ignore {shlex.quote(c.name)} leaves it out"
        for c in continuous
        for _, value, share in [repeats[c.position]]
        if share > _SPIKE
    ]


def _equal(table: Table, columns: list[Column], digests: list[bytes]) -> list[str]:
    """A note on equal discrete columns; InputError where continuous ones are equal."""
    notes = []
    first: dict[bytes, Column] = {}
    for column in columns:
        other = first.setdefault(digests[column.position], column)
        if other is column:
            continue
        said = f"columns {other.name!r} and {column.name!r} are equal"
        if not column.discrete:
            raise InputError(
                f"{table.place}: {said}: there is no density; leave one out with --ignore {shlex.quote(column.name)}"
            )
        notes.append(f"{said}; --ignore {shlex.quote(column.name)} leaves one out")
    return notes


def _refuse_dependent(table: Table, look: np.ndarray, continuous: list[Column]) -> None:
    """Raises InputError where one continuous column is a linear function of others, to 10 digits."""
    if len(continuous) < 2 or len(look) < len(continuous) + 10:
        return
    values = look[:, [c.position for c in continuous]]
    with np.errstate(all="ignore"):
        values = values - values.mean(0)
        values /= np.abs(values).max(0)
        triangle = (
            np.abs(np.diag(np.linalg.qr(values, mode="r"))) if np.isfinite(values).all() else np.ones(1)
        )
    sizes = np.linalg.norm(values, axis=0)
    for k in range(1, len(triangle)):
        if triangle[k] <= 1e-10 * sizes[k]:  # the part of column k that those before it do not explain
            name = continuous[k].name
            others = ", ".join(c.name for c in continuous[:k][:10])
            raise InputError(
                f"{table.place}: column {name!r} is a linear function of columns before it ({others}): there is no "
                f"density; leave it out with --ignore {shlex.quote(name)}"
            )
