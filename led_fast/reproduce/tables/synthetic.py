"""Data whose density is known exactly."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator, default_rng

_LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True)
class SyntheticDensity:
    """A density that can be drawn from and evaluated.

    Attributes:
        dim: D.
        sample: (n, random) -> (n, D), float64.
        log_prob: (n, D) -> (n,), in nats; -inf off the support.
    """

    dim: int
    sample: Callable[[int, Generator], np.ndarray]
    log_prob: Callable[[np.ndarray], np.ndarray]


def mixture(dim: int = 8, components: int = 20, seed: int = 1) -> SyntheticDensity:
    """Normals in general position: random means, axes and weights, standard deviations from .15 to 1.

    Args:
        dim: D.
        components: their number.
        seed: of means, axes, deviations and weights.
    """
    random = default_rng(seed)
    means = 2 * random.standard_normal((components, dim))
    axes = np.stack([_orthogonal(dim, random) for _ in range(components)])
    deviations = random.uniform(0.15, 1.0, (components, dim))
    weights = random.dirichlet(np.full(components, 3.0))
    log_scale = np.log(weights) - np.log(deviations).sum(axis=1) - dim / 2 * _LOG_2PI

    def sample(n: int, random: Generator) -> np.ndarray:
        chosen = random.choice(components, n, p=weights)
        z = deviations[chosen] * random.standard_normal((n, dim))
        return means[chosen] + np.einsum("nij,nj->ni", axes[chosen], z)

    def log_prob(x: np.ndarray) -> np.ndarray:
        z = np.einsum("nkj,kji->nki", x[:, None] - means, axes) / deviations
        return np.logaddexp.reduce(log_scale - np.square(z).sum(axis=2) / 2, axis=1)

    return SyntheticDensity(dim, sample, log_prob)


def edges(seed: int = 2) -> SyntheticDensity:
    """A checkerboard, two moons and twelve normal columns, all turned by one random rotation: D = 16.

    The checkerboard is uniform over the 8 black unit squares of [-2, 2]²; each moon is half a circle of radius 1 with
    normal noise of σ = .08 around it.

    Args:
        seed: of the rotation.
    """
    dim, normals = 16, 12
    rotation = _orthogonal(dim, default_rng(seed))

    def sample(n: int, random: Generator) -> np.ndarray:
        normal = random.standard_normal((n, normals))
        return np.hstack([_sample_checkerboard(n, random), _sample_moons(n, random), normal]) @ rotation.T

    def log_prob(x: np.ndarray) -> np.ndarray:
        y = x @ rotation
        normal = -(np.square(y[:, 4:]).sum(axis=1) + normals * _LOG_2PI) / 2
        return log_checkerboard(y[:, :2]) + log_moons(y[:, 2:4]) + normal

    return SyntheticDensity(dim, sample, log_prob)


def _orthogonal(dim: int, random: Generator) -> np.ndarray:
    return np.linalg.qr(random.standard_normal((dim, dim)))[0]


def _sample_checkerboard(n: int, random: Generator) -> np.ndarray:
    row, half = random.integers(4, size=n), random.integers(2, size=n)
    return np.stack([row, 2 * half + row % 2], axis=1) - 2 + random.random((n, 2))


def log_checkerboard(x: np.ndarray) -> np.ndarray:
    """Log density of points (n, 2): 1/8 on squares whose corners' coordinates have an even sum."""
    black = (np.abs(x) < 2).all(axis=1) & (np.floor(x).sum(axis=1) % 2 == 0)
    return np.where(black, -math.log(8), -np.inf)


_MOON_NOISE = 0.08
_MOON_NODES = 128  # of Gauss and Legendre along each half circle: at most half a σ apart, exact to rounding
_CHUNK = 2000


def _moons(angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points of both half circles at an angle from 0 to π."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([cos, sin], axis=-1), np.stack([1 - cos, 0.5 - sin], axis=-1)


def _sample_moons(n: int, random: Generator) -> np.ndarray:
    first, second = _moons(math.pi * random.random(n))
    chosen = np.where(random.random((n, 1)) < 0.5, first, second)
    return chosen + _MOON_NOISE * random.standard_normal((n, 2))


def log_moons(x: np.ndarray) -> np.ndarray:
    """Log density of points (n, 2): the integral of the noise's density along both half circles."""
    nodes, weights = np.polynomial.legendre.leggauss(_MOON_NODES)
    centers = np.concatenate(_moons((nodes + 1) * math.pi / 2))
    log_weights = np.log(np.tile(weights / 4, 2)) - 2 * math.log(_MOON_NOISE) - _LOG_2PI
    parts = []
    for part in np.array_split(x, max(1, len(x) // _CHUNK)):
        squares = np.square(part[:, None] - centers).sum(axis=2)
        parts.append(np.logaddexp.reduce(log_weights - squares / (2 * _MOON_NOISE**2), axis=1))
    return np.concatenate(parts)
