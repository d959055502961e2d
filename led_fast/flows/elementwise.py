"""Layers that act on each element alone, without learned parameters."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from led_fast.flows.contract import Layer, check_event, log_dtype, next_number, of_its_own, sum_event

_LEAST = 1e-20  # logits end here, far below what dequantised data and generators come to


class Affine(Layer):
    """A fixed affine map, `t' = scale t + shift`: into the units of the data, as a flow's last layer.

    Its result is of the wider dtype of t and scale, because the units of data may want float64.

    Args:
        scale: non-zero, shape of one sample or broadcastable to it.
        shift: the same.

    Shape:
        t: (B, ...). Output: the same and ladj (B,).

    Example:
        >>> import torch
        >>> from led_fast.flows import Affine
        >>> layer = Affine(torch.tensor([2.0, 4.0]), torch.tensor([0.0, 1.0]))
        >>> layer(torch.ones(1, 2))
        (tensor([[2., 5.]]), tensor([2.0794]))
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        if not scale.is_meta and not bool((scale != 0).all()):
            raise ValueError("Affine: scale must be nonzero, got zeros")
        self.register_buffer("scale", scale.detach().clone())
        self.register_buffer("shift", shift.detach().clone())

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (scale t + shift, Σ log|scale|)."""
        ladj = self._ladj(t)
        return self.scale * t + self.shift, ladj.repeat(t.shape[0])

    def inverse(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns ((t - shift) / scale, -Σ log|scale|)."""
        ladj = self._ladj(t)
        return (t - self.shift) / self.scale, -ladj.expand(t.shape[0])

    def forward_with_score(self, t: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Layer`: the Jacobian is diagonal."""
        return *self(t), score / self.scale

    def _ladj(self, t: Tensor) -> Tensor:
        check_event("Affine", t, torch.broadcast_shapes(self.scale.shape, self.shift.shape, t.shape[1:]))
        scale = self.scale.to(torch.promote_types(log_dtype(t), self.scale.dtype)).expand(t.shape[1:])
        return scale.abs().log().sum()


class LastMap(Layer):
    """A map into the box (0, 1) of image data, of each element alone.

    Attributes:
        centre: the t that becomes halfway between dark and light.
    """

    centre: float

    def by_elements(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """t, and log dx/dt there, of every element of x in the box; (B, ...) each."""
        raise NotImplementedError(f"{type(self).__name__}: by_elements is not implemented")

    def slope(self, x: Tensor) -> Tensor:
        """dx/dt of every element of x."""
        return self.by_elements(x)[1].exp()

    def inverse(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (t, -Σ log dx/dt) of x.

        A sample outside the box has no density: its ladj is -inf, and its value that of the box's nearest edge.
        """
        out, log_slope = self.by_elements(t)
        outside = ((t < 0) | (t > 1)).unsqueeze(-1).flatten(1).any(dim=1)
        return out, (-sum_event(log_slope)).masked_fill(outside, -torch.inf)


class Sigmoid(LastMap):
    """The logistic function, into the box (0, 1) of image data; ladj = Σ log y (1 - y).

    Shape:
        t: (B, ...). Output: the same and ladj (B,).

    Example:
        >>> import torch
        >>> from led_fast.flows import Sigmoid
        >>> Sigmoid()(torch.zeros(1, 1))
        (tensor([[0.5000]]), tensor([-1.3863]))
    """

    centre = 0.0

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (1 / (1 + e^{-t}), Σ log of its derivative)."""
        return of_its_own(t.sigmoid()), -sum_event(_steepness_lost(t))

    def forward_with_score(self, t: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Layer`: the Jacobian is diagonal."""
        out, ladj = self(t)
        with torch.no_grad():
            # d/dt of log y (1 - y) is 1 - 2y; two sigmoids give y (1 - y) without cancellation in either tail.
            return out, ladj, (score - (1 - 2 * out)) / (out * torch.sigmoid(-t))

    def by_elements(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The logit t, and log dx/dt there, of every element of x in the box; (B, ...) each."""
        log_x, log_rest = log_parts(x)
        return log_x - log_rest, log_x.to(log_dtype(x)) + log_rest

    def slope(self, x: Tensor) -> Tensor:
        """dx/dt of every element of x."""
        return x * (1 - x)


def _steepness_lost(t: Tensor) -> Tensor:
    """Minus the log of the logistic function's derivative."""
    t = t.to(log_dtype(t))
    return torch.sub(t, F.logsigmoid(t), alpha=2)


def logit(x: Tensor) -> Tensor:
    """`log(x / (1 - x))`, finite everywhere but at NaN. Beyond [0, 1] it is that of the nearest edge. Differentiable.

    Floating-point numbers are dense at 0, but those of float32 lie 6e-8 apart at 1. So the two ends are not alike:
    a bound that suits 1 would cut off at 0 what the black pixels of dequantised images, and of a generator of
    them, take values in. The last number below 1 is within the bound, and has the slope of the function there.
    """
    log_x, log_rest = log_parts(x)
    return log_x - log_rest


def log_parts(x: Tensor) -> tuple[Tensor, Tensor]:
    """Logs of x and of 1 - x, at least as large as those of the last numbers at which `logit` tells a difference."""
    precision = torch.finfo(x.dtype)
    return at_least(x, max(_LEAST, precision.tiny)).log(), at_least(1 - x, 0.5 * precision.eps).log()


def at_least(x: Tensor, bound: float) -> Tensor:
    """x, or a bound where it is below; of the slope of x at the bound and above."""
    # Not clamp, because versions of torch differ in its gradient at the bound itself: here it is 1.
    return F.threshold(x, next_number(bound, -torch.inf, x.dtype), bound)
