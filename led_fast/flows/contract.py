"""The contract that every layer of a flow keeps.

A layer maps a value `t` of shape (B, ...) to `(t', ladj)`, ladj of shape (B,), such that the log density of all
that is kept so far follows `log q(t') = log q(t) - ladj`. To write one:

- `forward(t) -> (t', ladj)`: t' of t's dtype, ladj of `log_dtype(t)`. For a bijection ladj is the log|det| of its
  Jacobian. `Inflate` and `Slice`, which change the dimension, put the log density of what they add or drop in its
  place (Eq. 6-8).
- `inverse(t') -> (t, ladj)`: the way back, with the log|det| of the map *applied*, so that the two ladj add up to 0.
  Sampling never needs it; the density of given points does. Leave it out where there is none. A layer that has one and
  still is no bijection, as `Inflate`, sets `bijective = False`.
- `forward_with_score(t, score)`: only where there is something better than the Jacobian of `Layer`.

normflows and nflows keep the first two as well, so that their layers run in our flows; ours run in theirs and in
zuko's (`led_fast.flows.adapters`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from led_fast.ops._sample_sums import log_dtype

_LOG_2PI = math.log(2 * math.pi)


class NotInvertibleError(TypeError):
    """A layer cannot be run backward: it forgets something on the way.

    Example:
        >>> import torch
        >>> from led_fast import flows
        >>> try:
        ...     flows.Slice(2, keep=1).inverse(torch.zeros(1, 1))
        ... except flows.NotInvertibleError:
        ...     print("it has dropped what would be needed")
        it has dropped what would be needed
    """


class Layer(nn.Module):
    """The base of layers, see the module's docstring. Samples of a batch must not depend on each other.

    `nn.SoftReLU` and `nn.CircularConv2d`, which serve outside of flows too, keep the contract without it.

    Example:
        >>> import torch
        >>> from led_fast.flows import Layer
        >>> class Double(Layer):
        ...     def forward(self, t):
        ...         return 2 * t, torch.full((len(t),), t[0].numel() * 0.6931)
        ...
        ...     def inverse(self, t):
        ...         return t / 2, torch.full((len(t),), t[0].numel() * -0.6931)
        >>> Double().inverse(torch.ones(3, 2))[1]
        tensor([-1.3862, -1.3862, -1.3862])
    """

    @property
    def bijective(self) -> bool:  # a property, so that a subclass may answer by an attribute or by its parts
        """Whether `forward` maps samples one to one, so that each direction undoes the other."""
        return self.invertible

    @property
    def invertible(self) -> bool:
        """Whether there is an `inverse`, and with it a density of any given point."""
        return type(self).inverse is not Layer.inverse

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Maps t of shape (B, ...) to (t', ladj), ladj of shape (B,) in nats."""
        raise NotImplementedError(f"{type(self).__name__}: forward is not implemented")

    def inverse(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Maps t of shape (B, ...) back to (t', ladj), ladj that of this direction, in nats.

        Raises:
            NotInvertibleError: the layer has no way back.
        """
        raise _not_invertible(self)

    def forward_with_score(self, t: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `forward`, and carries the score of the density along.

        With `s = ∇ log q(t)`, differentiating `log q(t') = log q(t) - ladj(t)` gives the score of the output,
        `s' = J^{-T} (s - ∇ladj)`: what the gradient of a sample's log density through the sample alone needs
        (Roeder et al. 2017, "Sticking the Landing").

        Args:
            t: value, (B, ...).
            score: gradient of log q at t, of t's shape, detached.

        Returns:
            (t', ladj, score'): as `forward(t)`, and the score at t', detached.
        """
        return _by_jacobian(self, t, score)


def invertible(layer: nn.Module) -> bool:
    """Whether any module that keeps the contract has an inverse."""
    return getattr(layer, "invertible", hasattr(layer, "inverse"))


def inverse(layer: nn.Module, t: Tensor) -> tuple[Tensor, Tensor]:
    """`layer.inverse(t)` of any module that keeps the contract.

    Raises:
        NotInvertibleError: it has no inverse.
    """
    own = getattr(layer, "inverse", None)
    if own is None:
        raise _not_invertible(layer)
    return own(t)


def forward_with_score(layer: Callable[..., Any], t: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`layer.forward_with_score(t, score)`; of one without that rule, by its Jacobian."""
    own = getattr(layer, "forward_with_score", None)
    return _by_jacobian(layer, t, score) if own is None else own(t, score)


def through(layers: Iterable[Callable[..., Any]], t: Tensor) -> tuple[Tensor, Tensor]:
    """Values through layers in turn: (t', ladj of all)."""
    steps = []
    for layer in layers:
        t, step = layer(t)
        steps.append(step)
    return t, total(steps, t)


def through_with_score(
    layers: Iterable[Callable[..., Any]], t: Tensor, score: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The same with the score: (t', ladj, score')."""
    ladj = t.new_zeros(t.shape[0], dtype=log_dtype(t))
    for layer in layers:
        t, step, score = forward_with_score(layer, t, score)
        ladj = ladj + step
    return t, ladj, score


def total(steps: Sequence[Tensor], t: Tensor) -> Tensor:
    """The log-determinants of layers in one sum; zeros for the samples of t where there are none."""
    if not steps:
        return t.new_zeros(t.shape[0], dtype=log_dtype(t))
    return torch.stack(list(steps)).sum(0)


def _not_invertible(layer: nn.Module) -> NotInvertibleError:
    return NotInvertibleError(f"inverse: {type(layer).__name__} cannot be inverted")


def _by_jacobian(layer: Callable[..., Any], t: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The score rule of any layer that keeps the dimension: its full Jacobian, one output coordinate at a time."""
    with_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        t = t if with_graph and t.requires_grad else t.detach().requires_grad_()
        out, ladj = layer(t)
        columns = out.flatten(1)
        rows = [gradient(columns[:, i], t).flatten(1) for i in range(columns.shape[1])]
        pulled = (score - gradient(ladj, t)).flatten(1)
    carried = torch.linalg.solve(torch.stack(rows, dim=1).mT, pulled).view_as(out)
    return (out, ladj, carried) if with_graph else (out.detach(), ladj.detach(), carried)


def gradient(value: Tensor, t: Tensor) -> Tensor:
    """Each sample's gradient of `value` with respect to t, zero where it does not depend on t."""
    if not value.requires_grad:
        return torch.zeros_like(t)
    (found,) = torch.autograd.grad(value.sum(), t, retain_graph=True, allow_unused=True)
    return torch.zeros_like(t) if found is None else found


# ---- what layers share -----------------------------------------------------------------------------------


def check_features(layer: str, t: Tensor, features: int) -> None:
    """Raises unless t is a floating tensor of shape (B, features, ...)."""
    if not t.is_floating_point():
        raise TypeError(f"{layer}: t must be a floating-point tensor, got {t.dtype}")
    if t.dim() < 2 or t.shape[1] != features:
        raise ValueError(f"{layer}: t must have shape (B, {features}, ...), got {tuple(t.shape)}")


def check_event(layer: str, t: Tensor, shape: torch.Size) -> None:
    """Raises unless every sample of t, (B, *shape), has the given shape: others would broadcast."""
    if t.dim() == 0 or t.shape[1:] != shape:
        wanted = "".join(f", {size}" for size in shape)
        raise ValueError(f"{layer}: t must have shape (B{wanted}), got {tuple(t.shape)}")


def check_positive(layer: str, **sizes: float) -> None:
    """Raises unless every named argument is greater than zero."""
    for name, value in sizes.items():
        if not value > 0:
            raise ValueError(f"{layer}: {name} must be positive, got {value}")


def sum_event(x: Tensor) -> Tensor:
    """Sums every dimension but the first, in `log_dtype`: (B, ...) -> (B,)."""
    return x.unsqueeze(-1).flatten(1).sum(1, dtype=log_dtype(x))


def of_its_own(out: Tensor) -> Tensor:
    """A copy of an output where its gradient needs the original, because the caller may change it in place."""
    return out.clone() if out.requires_grad else out


def standard_normal_log_prob(x: Tensor) -> Tensor:
    """Log density of N(0, I) at x of shape (B, ...), in nats: (B,)."""
    return sum_event(-0.5 * x.to(log_dtype(x)).square() - 0.5 * _LOG_2PI)


def normal_cdf(x: Tensor) -> Tensor:
    """Φ(x), exact to rounding where it is small; `torch.special.ndtr` is not."""
    return 0.5 * torch.special.erfc(-math.sqrt(0.5) * x)


def next_number(value: float, towards: float, dtype: torch.dtype) -> float:
    """The number of a dtype that comes after a value, on the side of another one."""
    # Not by torch.nextafter, because compilers and tracers would take that for a part of their graph.
    gap = _gap(value, dtype)
    number = round(value / gap) * gap
    return number + math.copysign(_gap(math.nextafter(number, towards), dtype), towards - number)


def _gap(value: float, dtype: torch.dtype) -> float:
    """How far apart the numbers of a dtype lie around a value."""
    of = torch.finfo(dtype)
    return float(of.eps) * 2.0 ** (math.frexp(max(abs(value), of.tiny))[1] - 1)
