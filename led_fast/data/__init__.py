"""Training data in the plane: the paper's two Gaussian mixtures, and any file of rows."""

from led_fast.data.mixture import GaussianMixture, grid, ring
from led_fast.data.source import DataSource, MixtureSource, TableSource, open_source
from led_fast.data.table import read_rows

__all__ = [
    "DataSource",
    "GaussianMixture",
    "MixtureSource",
    "TableSource",
    "grid",
    "open_source",
    "read_rows",
    "ring",
]
