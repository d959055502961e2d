"""LED for tables as an estimator, with the methods of scikit-learn's: fit, score_samples, sample."""

from __future__ import annotations

import inspect
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch

from led_fast.data.tables import Column, TableSource, round_to_lattice, table_of
from led_fast.density import DensityModel
from led_fast.errors import InputError
from led_fast.evaluation.cells import Cells
from led_fast.random_state import seeded
from led_fast.surroundings import usual
from led_fast.terminal import console
from led_fast.training import (
    RunDirectory,
    TrainConfig,
    TrainedModel,
    fit,
    load_model,
    read_model,
    steps_in,
    write_model,
)

_FEWEST_ROWS = 10


class LED:
    """A density of a table's rows: D columns of numbers, continuous or on a lattice.

    It finds what the columns are, fits each column's distribution, trains a flow of all of them by maximum likelihood,
    and last a critic that tilts the flow's density to what it has missed, with a normaliser that is judged. Columns
    that are constant are left out; columns on a lattice (counts, ratings, values with few decimals) are dequantised,
    and their densities are per unit of the noise.

    It has the methods of scikit-learn's density estimators, and works in its `Pipeline`, `GridSearchCV` and `clone`;
    scikit-learn itself is not needed.

    Example:
        >>> import numpy as np
        >>> from led_fast import LED
        >>> X = np.random.default_rng(0).normal(size=(500, 3))
        >>> density = LED(steps=50, random_state=0).fit(X)
        >>> density.score_samples(X[:2]).shape, density.sample(4).shape
        ((2,), (4, 3))

    Args:
        minutes: about how long to train, on this machine.
        steps: how many training steps instead; with it, the same data give the same model, bit for bit.
        random_state: seed of weights, noise and splits of a fit; None draws one from numpy's global generator.
        verbose: show the progress of training.

    Attributes:
        model_: the `DensityModel` of the rows' modelled columns, in their own units; `model_.verdict` says whether its
            normaliser can be believed.
        columns_: what is modelled, a tuple of `Column`.
        n_features_in_: number of columns.
        feature_names_in_: their names, where X was a data frame with names.
        seconds_: how long training took.
        notes_: what `fit` found in the columns, one sentence each; `load` does not know them.
    """

    def __init__(
        self,
        minutes: float = 1.0,
        *,
        steps: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        self.minutes, self.steps = minutes, steps
        self.random_state, self.verbose = random_state, verbose

    # ---- scikit-learn's protocol

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments of the constructor, by name."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **params: Any) -> LED:
        """Changes arguments of the constructor; ValueError for one that there is not."""
        for name, value in params.items():
            if name not in self.get_params():
                raise ValueError(
                    f"LED.set_params: names must be among {', '.join(self.get_params())}, got {name!r}"
                )
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        """The arguments that are not the default ones."""
        defaults = {name: p.default for name, p in inspect.signature(type(self)).parameters.items()}
        given = {name: value for name, value in self.get_params().items() if value is not defaults[name]}
        return f"LED({', '.join(f'{name}={value!r}' for name, value in given.items())})"

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn asks of an estimator, where it is installed."""
        from sklearn.utils import InputTags, Tags, TargetTags

        return Tags(
            estimator_type="density_estimator", target_tags=TargetTags(required=False), input_tags=InputTags()
        )

    def __sklearn_is_fitted__(self) -> bool:
        """Whether `fit` was called."""
        return hasattr(self, "model_")

    # ---- the density

    @usual()
    def fit(self, X: Any, y: Any = None) -> LED:
        """Learns the density of rows.

        Args:
            X: (n, D) numbers, all finite, 10 rows at least: an array, or a data frame, whose names are kept.
            y: not used.

        Raises:
            ValueError: X is no such table, all its columns are constant, or continuous ones depend on each other.
            TypeError: X is sparse, or holds what is no number.
        """
        if self.steps is None and not self.minutes > 0:
            raise ValueError(f"LED: minutes must be positive, got {self.minutes!r}")
        if self.steps is not None and not (isinstance(self.steps, Integral) and self.steps > 0):
            raise ValueError(f"LED: steps must be a positive integer, got {self.steps!r}")
        rows, names = _table(X)
        if len(rows) < _FEWEST_ROWS:
            raise ValueError(f"LED.fit: X must have at least {_FEWEST_ROWS} rows, got n_samples={len(rows)}")
        source = TableSource("X", table_of(rows, names, "X"), fewest=_FEWEST_ROWS)
        seed = _seed(self.random_state)
        config = TrainConfig.of(source, seed=seed, steps=self.steps)
        if self.steps is None:
            config = replace(config, minutes=self.minutes, steps=steps_in(self.minutes, config, source))
        trained = fit(config, source, console(quiet=not self.verbose))
        self._adopt(trained, rows.shape[1], names)
        self.notes_ = source.notes
        return self

    @usual()
    def score_samples(self, X: Any) -> np.ndarray:
        """Log density of rows.

        A row's density depends on nothing but the row. Discrete values stand for cells of their lattice, and the
        density is the mean over them; so it is per step there. Columns that were constant in `fit` do not count.

        Args:
            X: (n, D), with the columns of `fit`.

        Returns:
            (n,) float64, in nats, in the data's own units.
        """
        self._check_fitted()
        rows = torch.from_numpy(np.array(self._matched(X)[:, self._modelled]))
        cells = Cells(self.columns_)
        with torch.no_grad():
            return cells.log_density(self.model_.log_prob, rows, self.model_.log_normalizer.device).numpy()

    def score(self, X: Any, y: Any = None) -> float:
        """Mean log density of rows, in nats: higher is better."""
        return float(self.score_samples(X).mean())

    @usual()
    def sample(self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None) -> Any:
        """Draws rows from the flow, the discrete values on their lattices.

        Args:
            n_samples: how many.
            random_state: seed; None draws one from numpy's global generator.

        Returns:
            (n_samples, D) float64, constant columns included; a data frame where `fit` had one.
        """
        self._check_fitted()
        if not (isinstance(n_samples, Integral) and n_samples > 0):
            raise ValueError(f"LED.sample: n_samples must be a positive integer, got {n_samples!r}")
        device = self.model_.log_normalizer.device
        with seeded(_seed(random_state), device), torch.no_grad():
            drawn = self.model_.sample(int(n_samples)).double().cpu().numpy()
        rows = np.empty((len(drawn), self.n_features_in_))
        for constant in self._trained.config.model.constants:
            rows[:, constant.position] = constant.value
        for column, values in zip(self.columns_, drawn.T, strict=True):
            rows[:, column.position] = round_to_lattice(column, values)
        if not hasattr(self, "feature_names_in_"):
            return rows
        import pandas

        return pandas.DataFrame(rows, columns=self.feature_names_in_)

    # ---- files

    def save(self, path: str | Path) -> None:
        """Writes the fitted model to one file, which `load` reads."""
        self._check_fitted()
        write_model(Path(path), self._trained)

    @classmethod
    @usual()
    def load(cls, path: str | Path) -> LED:
        """Reads what `save` wrote, or the finished run on a table that `led-fast train` left in a folder.

        Raises:
            InputError: a file or a folder that is neither.
        """
        path = Path(path)
        trained = load_model(RunDirectory.open(path)) if path.is_dir() else read_model(path)
        if trained.config.kind != "tables":
            raise InputError(f"{path}: is a model of {trained.config.kind}, not of a table")
        model = trained.config.model
        width = len(model.columns) + len(model.constants)
        names = [
            part.name for part in sorted([*model.columns, *model.constants], key=lambda part: part.position)
        ]
        config = trained.config
        estimator = cls(config.minutes or 1.0, steps=config.steps, random_state=config.seed)
        estimator._adopt(trained, width, names if model.named else None)
        return estimator

    # ---- inside

    @property
    def _modelled(self) -> list[int]:
        return [column.position for column in self.columns_]

    def _adopt(self, trained: TrainedModel, width: int, names: list[str] | None) -> None:
        self._trained = trained
        self.model_: DensityModel = trained.model
        self.columns_: tuple[Column, ...] = trained.config.model.columns
        self.seconds_ = trained.seconds
        self.n_features_in_ = width
        if names is not None:
            self.feature_names_in_ = np.array(names, dtype=object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_

    def _check_fitted(self) -> None:
        if not self.__sklearn_is_fitted__():
            raise _not_fitted("This LED instance is not fitted yet: call fit first")

    def _matched(self, X: Any) -> np.ndarray:
        """Rows of X, whose columns must be those of `fit`."""
        rows, names = _table(X)
        expected = list(getattr(self, "feature_names_in_", []))
        if names is not None and expected and names != expected:
            raise ValueError(
                "The feature names should match those that were passed during fit, in the same order: want "
                f"{', '.join(expected)}; got {', '.join(names)}"
            )
        if rows.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {rows.shape[1]} features, but LED is expecting {self.n_features_in_} features as input"
            )
        return rows


def _table(X: Any) -> tuple[np.ndarray, list[str] | None]:
    """(n, D) finite float64 numbers, and the columns' names where there are any."""
    if hasattr(X, "toarray"):
        raise TypeError(
            "LED: sparse data were passed, but dense data are required; X.toarray() makes them so"
        )
    names = [name for name in getattr(X, "columns", [])]
    named = bool(names) and all(isinstance(name, str) for name in names)
    values = np.asarray(X)
    if np.iscomplexobj(values):
        raise ValueError("LED: Complex data not supported: X must hold real numbers")
    values = np.array(values, dtype=np.float64)
    if values.ndim != 2:
        raise ValueError(
            f"LED: Expected 2D array, got {values.ndim}D array instead. Reshape your data by X.reshape(-1, 1) if it "
            "has one column, by X.reshape(1, -1) if it has one row"
        )
    for axis, what in enumerate(("sample", "feature")):
        if not values.shape[axis]:
            raise ValueError(f"LED: 0 {what}(s) (shape={values.shape}) while a minimum of 1 is required.")
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        row, column = bad[0]
        kind = "NaN" if np.isnan(values[row, column]) else "inf"
        where = repr(names[column]) if named else str(column)
        raise ValueError(f"LED: X contains {kind}: row {row}, column {where}")
    return values, names if named else None


def _seed(random_state: int | np.random.RandomState | None) -> int:
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    generator = np.random if random_state is None else random_state
    return int(generator.randint(2**31 - 1))


def _not_fitted(message: str) -> Exception:
    try:
        from sklearn.exceptions import NotFittedError
    except ImportError:
        return AttributeError(message)
    return NotFittedError(message)
