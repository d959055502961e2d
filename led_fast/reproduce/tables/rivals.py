"""LED's rivals on tables: `fit(train, validation, seconds, seed) -> Model`, all on the same rows and noise.

Seconds are of this process, on one thread. A flow trains until they are over; the others stop when they are done, and
take no new setting up after them.
"""

import time
from collections.abc import Callable

import numpy as np

from led_fast.reproduce.kde import fit_kernel_density
from led_fast.reproduce.tables.coordinates import Coordinates
from led_fast.reproduce.tables.model import Model
from led_fast.reproduce.tables.splits import Rows
from led_fast.reproduce.tables.zuko_flow import FlowSettings, fit_zuko_flow

_COMPONENTS = (1, 2, 3, 5, 8, 12, 20, 30, 40)
_COVARIANCE_FLOOR = 1e-5  # of standardised columns
_MOST_ITERATIONS = 100
_WIDTH_CHOSEN_BY = 1000  # validation rows
_TREES = 300

_Space = Callable[[Rows], Coordinates]


def fit_flow(
    settings: FlowSettings, space: _Space, train: Rows, validation: Rows, seconds: float, seed: int
) -> Model:
    """One of zuko's flows, by maximum likelihood."""
    deadline, random = time.process_time() + seconds, np.random.default_rng(seed)
    fitted = fit_zuko_flow(settings, space(train), train, validation, deadline, random)
    return Model(fitted.log_prob, info=fitted.info)


def fit_normal_mixture(space: _Space, train: Rows, validation: Rows, seconds: float, seed: int) -> Model:
    """A mixture of normals with full covariances; of 1 to 40, as many as validation rows like.

    BIC takes fewer, and loses .5 to 1.2 nats on satellite and digits.
    """
    from sklearn.mixture import GaussianMixture

    deadline, random = time.process_time() + seconds, np.random.default_rng(seed)
    coordinates = space(train)
    t = coordinates(train.dequantized(random))[0].numpy()
    held_out = coordinates(validation.dequantized(random))[0].numpy()

    def fit(components: int) -> GaussianMixture:
        made = GaussianMixture(
            components, reg_covar=_COVARIANCE_FLOOR, max_iter=_MOST_ITERATIONS, random_state=seed
        )
        return made.fit(t)

    best = fit(_COMPONENTS[0])
    for components in _COMPONENTS[1:]:
        if time.process_time() >= deadline:
            break
        candidate = fit(components)
        if candidate.score(held_out) < best.score(held_out):
            break
        best = candidate

    def log_prob(x: np.ndarray) -> np.ndarray:
        t, log_det = coordinates(x)
        return best.score_samples(t.numpy()) + log_det.numpy()

    return Model(log_prob, info={"components": best.n_components})


def fit_kernels(space: _Space, train: Rows, validation: Rows, seconds: float, seed: int) -> Model:
    """Equal normals around all training rows; validation rows choose their width."""
    random = np.random.default_rng(seed)
    coordinates = space(train)
    points, _ = coordinates(train.dequantized(random))
    held_out, _ = coordinates(validation.dequantized(random)[:_WIDTH_CHOSEN_BY])
    density = fit_kernel_density(points, held_out, scale=1.0)

    def log_prob(x: np.ndarray) -> np.ndarray:
        t, log_det = coordinates(x)
        return (density.log_prob(t) + log_det).numpy()

    return Model(log_prob, info={"width": density.width})


def fit_isolation_forest(train: Rows, validation: Rows, seconds: float, seed: int) -> Model:
    """No density: rows that random cuts isolate late score high."""
    from sklearn.ensemble import IsolationForest

    forest = IsolationForest(n_estimators=_TREES, random_state=seed, n_jobs=1).fit(train.values)
    return Model(forest.score_samples, info={"trees": _TREES})
