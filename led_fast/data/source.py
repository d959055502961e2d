"""Where training batches come from: a mixture drawn afresh at every step, or the rows of a file."""

import hashlib
import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from led_fast.data.mixture import GaussianMixture, grid, ring
from led_fast.data.tables import SUFFIXES, read_table
from led_fast.errors import InputError

_MIXTURES = {"ring": ring, "grid": grid}
_HELD_OUT_SHARE = 0.1
_SPLIT_SEED = 0
_FEWEST_ROWS = 100
_PLANE = 2


class DataSource(Protocol):
    """What training and evaluation need to know about data.

    Attributes:
        kind: "points".
        name: `ring`, `grid` or the file's path.
        mixture: the exact density, None where it is unknown.
        fingerprint: identifies the content; a run resumes on the same content only.
        shift: (D,) float64; training happens in the coordinates (x - shift) / scale.
        scale: (D,) float64.
        columns: the names of the coordinates, where they have any.
        notes: what was done to the content of a file, one sentence each.
    """

    columns: tuple[str, ...]
    notes: tuple[str, ...]
    kind: str
    name: str
    mixture: GaussianMixture | None
    fingerprint: str
    shift: Tensor
    scale: Tensor

    def sample(self, n: int) -> Tensor:
        """Draws (n, D) training points, float64, in the data's own coordinates."""
        ...

    def held_out(self, n: int) -> Tensor:
        """At most n points, (≤ n, D) float64, that training never sees."""
        ...


class MixtureSource:
    """Fresh draws from a known mixture: every point is new, so nothing can be overfitted.

    Example:
        >>> from led_fast.data import MixtureSource, ring
        >>> MixtureSource("ring", ring()).sample(5).shape
        torch.Size([5, 2])
    """

    kind = "points"

    def __init__(self, name: str, mixture: GaussianMixture) -> None:
        """Wraps a mixture under the name that runs record."""
        self.name = self.fingerprint = name
        self.columns: tuple[str, ...] = ()
        self.notes: tuple[str, ...] = ()
        self.mixture: GaussianMixture | None = mixture
        self.shift, self.scale = mixture.mean, mixture.scale
        self._sample = mixture.sample

    def sample(self, n: int) -> Tensor:
        """Draws n points from the mixture."""
        return self._sample(n)

    def held_out(self, n: int) -> Tensor:
        """Draws n points from the mixture: no point is ever seen twice."""
        return self._sample(n)


class PointsSource:
    """Rows of two continuous columns, sampled with replacement; a fixed tenth of them is held out.

    Attributes:
        columns: the names of the coordinates, where they have any.
        notes: what was done to the file's content, one sentence each.

    Example:
        >>> import torch
        >>> from led_fast.data import PointsSource
        >>> PointsSource("mine", torch.randn(500, 2)).sample(5).shape
        torch.Size([5, 2])
    """

    kind = "points"

    def __init__(
        self, name: str, rows: Tensor, columns: Sequence[str] = (), notes: Sequence[str] = ()
    ) -> None:
        """Splits rows (n, D), float64; InputError where they are too few or a column is constant."""
        if len(rows) < _FEWEST_ROWS:
            raise InputError(f"{name}: want at least {_FEWEST_ROWS} rows to learn from, got {len(rows)}")
        self.name, self.columns, self.notes = name, tuple(columns), tuple(notes)
        self.mixture: GaussianMixture | None = None
        self.fingerprint = hashlib.sha256(rows.numpy().tobytes()).hexdigest()
        generator = torch.Generator("cpu").manual_seed(_SPLIT_SEED)
        order = torch.randperm(len(rows), generator=generator, device="cpu")
        held_out = int(len(rows) * _HELD_OUT_SHARE)
        self._held_out, self._rows = rows[order[:held_out]], rows[order[held_out:]]
        self.shift, self.scale = self._rows.mean(0), self._rows.std(0)
        for column, scale in zip(columns or range(1, rows.shape[1] + 1), self.scale.tolist(), strict=True):
            if not 0 < scale < math.inf:
                spread = "is constant" if scale == 0 else "has a spread beyond float64"
                raise InputError(f"{name}: column {column!r} {spread}: there is no density to learn")

    def sample(self, n: int) -> Tensor:
        """Draws n training rows with replacement."""
        return self._rows[torch.randint(len(self._rows), (n,), device="cpu")]

    def held_out(self, n: int) -> Tensor:
        """The first n held-out rows."""
        return self._held_out[:n]


def is_distribution(name: str) -> bool:
    """Whether a name is that of a distribution which is known exactly."""
    return name in _MIXTURES


def open_source(name: str, drop_missing: bool = False) -> DataSource:
    """Opens training data of points by name.

    Args:
        name: `ring`, `grid`, or the path of a file of two continuous columns, see `led_fast.data.tables.read_table`.
        drop_missing: leave out rows of a file in which a value is missing, instead of refusing them.

    Raises:
        InputError: an unknown name, or a file that cannot serve as training data.

    Example:
        >>> from led_fast.data import open_source
        >>> open_source("ring").sample(5).shape
        torch.Size([5, 2])
    """
    if name in _MIXTURES:
        return MixtureSource(name, _MIXTURES[name]())
    if not name.lower().endswith(SUFFIXES):
        raise InputError(
            f"{name}: want ring, grid, or a file that ends in {', '.join(SUFFIXES)}, got another name"
        )
    table = read_table(name, drop_missing=drop_missing)
    if len(table.names) != _PLANE:
        raise InputError(f"{name}: want two columns for points in the plane, got {len(table.names)}")
    names = table.names if table.header else ()
    return PointsSource(name, torch.from_numpy(table.take(slice(None))), names, table.notes)
