"""Training data in the plane: the paper's two Gaussian mixtures, and any file of rows."""

from led_fast.data.mixture import GaussianMixture, grid, ring
from led_fast.data.source import DataSource, MixtureSource, PointsSource, open_source

__all__ = [
    "DataSource",
    "GaussianMixture",
    "MixtureSource",
    "PointsSource",
    "grid",
    "open_source",
    "ring",
]
