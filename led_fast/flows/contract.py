"""The contract that every layer of a one-way flow keeps.

A layer maps a value `t` of shape (B, ...) to `(t', ladj)` with `ladj` of shape (B,), such that the log
density of the joint of everything kept so far follows `log q(t') = log q(t) - ladj`. For a bijection `ladj`
is the log-absolute-determinant of its Jacobian; `Inflate` and `Slice`, which change the dimension, put the
log density of what they add or drop in its place (Eq. 6-8). Sampling is the only direction: no layer needs an
inverse.
"""

from __future__ import annotations

import math
from typing import Protocol

from torch import Tensor

_LOG_2PI = math.log(2 * math.pi)


class Layer(Protocol):
    """Anything callable as `layer(t) -> (t', ladj)`; see the module's docstring."""

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Maps t of shape (B, ...) to (t', ladj), ladj of shape (B,)."""
        ...


def check_features(layer: str, t: Tensor, features: int) -> None:
    """Raises unless t is a floating tensor of shape (B, features, ...)."""
    if not t.is_floating_point():
        raise TypeError(f"{layer}: t must be a floating-point tensor, got {t.dtype}")
    if t.dim() < 2 or t.shape[1] != features:
        raise ValueError(f"{layer}: t must have shape (B, {features}, ...), got {tuple(t.shape)}")


def check_positive(layer: str, **sizes: float) -> None:
    """Raises unless every named argument is greater than zero."""
    for name, value in sizes.items():
        if not value > 0:
            raise ValueError(f"{layer}: {name} must be positive, got {value}")


def per_feature(parameter: Tensor, t: Tensor) -> Tensor:
    """Views a parameter of shape (features,) so that it broadcasts over t of shape (B, features, ...)."""
    return parameter.view(-1, *[1] * (t.dim() - 2))


def sum_event(x: Tensor) -> Tensor:
    """Sums every dimension but the first: (B, ...) -> (B,)."""
    return x.sum(dim=tuple(range(1, x.dim()))) if x.dim() > 1 else x


def standard_normal_log_prob(x: Tensor) -> Tensor:
    """Log density of N(0, I) at x of shape (B, ...), in nats: (B,)."""
    return sum_event(-0.5 * x.square() - 0.5 * _LOG_2PI)
