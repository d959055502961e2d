"""What every method of the comparison gives back."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

LogProb = Callable[[np.ndarray], np.ndarray]
"""Rows (n, D) in data units -> log densities (n,) in nats, a discrete column per dequantised unit."""


@dataclass(frozen=True)
class Model:
    """A fitted model.

    Attributes:
        log_prob: of rows in data units; of a method that has no density, a score that is higher for usual rows.
        generator: log density of LED's own flow; None elsewhere.
        info: JSON values, such as steps and chosen settings.
    """

    log_prob: LogProb
    generator: LogProb | None = None
    info: dict[str, Any] = field(default_factory=dict)
