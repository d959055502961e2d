"""The last map of images that are mostly black."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from led_fast.flows.contract import Layer, log_dtype, normal_cdf, sum_event
from led_fast.flows.elementwise import LEAST, at_least, outside_of_box

_LEVEL = 1 / 256  # of dequantised bytes: black ones are uniform below it
_KNEE = 2.3
_BELOW_KNEE = 0.5 * math.erfc(-_KNEE / math.sqrt(2))  # Φ(2.3)
_SPAN = 1 - _LEVEL
_STEPS = 8  # of Newton's method, from within a few percent of the solution


class DarkMap(Layer):
    """Into the box (0, 1) of image data, with a normal distribution's bulk on the darkest of 256 grey levels.

    With `l = 1/256` and the knee `k = 2.3`, a value `t < k` becomes `x = l Φ(t) / Φ(k)`: there x is uniform, as black
    pixels are once they are dequantised, where t is standard normal. From k on, `x = l + (1 - l) v` with
    `t = k + a v - w log(1 - v)`. The logistic function instead spreads black out into logits of an exponential
    distribution, which no normal fits: it loses 0.42 nats a black pixel, and this map 0.01.

    Args:
        learned: whether a and w, which begin at 3 and ½, are learned.

    Attributes:
        log_gain, log_tail: log a and log w, 0-d; parameters, or buffers where they are not learned.

    Shape:
        t: (B, ...). Output: the same and ladj (B,).

    Example:
        >>> import torch
        >>> from led_fast import flows
        >>> layer = flows.DarkMap()
        >>> x, ladj = layer(torch.tensor([[-1.0, 0.0, 2.5, 6.0]]))
        >>> back, ladj_back = layer.inverse(x)
        >>> torch.allclose(back, torch.tensor([[-1.0, 0.0, 2.5, 6.0]]), atol=1e-4)
        True
    """

    log_gain: Tensor
    log_tail: Tensor
    centre = 3.0  # in t, between black and what is not

    def __init__(self, learned: bool = True) -> None:
        super().__init__()
        for name, start in (("log_gain", 3.0), ("log_tail", 0.5)):
            value = torch.tensor(start).log()
            if learned:
                self.register_parameter(name, nn.Parameter(value))
            else:
                self.register_buffer(name, value)

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (x, Σ log dx/dt)."""
        x, log_slope, _ = self._forward(t.to(log_dtype(t)))
        return x.to(t.dtype), sum_event(log_slope)

    def inverse(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (t, -Σ log dx/dt) of x.

        A sample outside the box has no density: its ladj is -inf, and its value that of the box's nearest edge.
        """
        out, log_slope = self.by_elements(t.to(log_dtype(t)))
        return out.to(t.dtype), (-sum_event(log_slope)).masked_fill(outside_of_box(t), -torch.inf)

    def forward_with_score(self, t: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Layer`: the Jacobian is diagonal."""
        x, log_slope, of_log_slope = self._forward(t.to(log_dtype(t)))
        with torch.no_grad():
            carried = (score - of_log_slope) / log_slope.exp()
        return x.to(t.dtype), sum_event(log_slope), carried.to(score.dtype)

    def by_elements(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """t, and log dx/dt there, of every element of x in the box; (B, ...) each."""
        gain, tail = self._gain_and_tail()
        dark = x < _LEVEL
        share = at_least(torch.where(dark, x, 0.5 * _LEVEL), LEAST) * (_BELOW_KNEE / _LEVEL)
        below = torch.special.ndtri(share)
        rest = at_least((1 - torch.where(dark, 0.5, x)) / _SPAN, 0.5 * torch.finfo(x.dtype).eps)
        above = _KNEE + gain * (1 - rest) - tail * rest.log()
        log_slope = torch.where(dark, _log_slope_below(below), _log_slope_above(rest.log(), gain, tail))
        return torch.where(dark, below, above), log_slope

    def slope(self, x: Tensor) -> Tensor:
        """dx/dt of every element of x."""
        return self.by_elements(x)[1].exp()

    def _gain_and_tail(self) -> tuple[Tensor, Tensor]:
        return self.log_gain.exp(), self.log_tail.exp()

    def _forward(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x, log dx/dt and the derivative of that, like t each."""
        gain, tail = self._gain_and_tail()
        dark = t < _KNEE
        below = torch.where(dark, t, 0.0)
        log_rest = _log_rest(torch.where(dark, 1.0, t - _KNEE), gain, tail)
        rest = log_rest.exp()
        x = torch.where(dark, normal_cdf(below) * (_LEVEL / _BELOW_KNEE), 1 - _SPAN * rest)
        log_slope = torch.where(dark, _log_slope_below(below), _log_slope_above(log_rest, gain, tail))
        return x, log_slope, torch.where(dark, -below, -tail / (gain * rest + tail).square())


def _log_rest(s: Tensor, gain: Tensor, tail: Tensor) -> Tensor:
    """log(1 - v) for `s = a v - w log(1 - v)`, s >= 0."""
    with torch.no_grad():
        # Both bounds lie above the solution of a concave equation, from where Newton's method never turns back.
        found = torch.minimum(-s / (gain + tail), (gain - s) / tail)
        for _ in range(_STEPS):
            found = _newton(found, s, gain, tail)
    # Two more steps, so that derivatives are those of the solution, up to the third.
    return _newton(_newton(found, s, gain, tail), s, gain, tail)


def _newton(log_rest: Tensor, s: Tensor, gain: Tensor, tail: Tensor) -> Tensor:
    excess = -gain * log_rest.expm1() - tail * log_rest - s
    return log_rest + excess / (gain * log_rest.exp() + tail)


def _log_slope_below(t: Tensor) -> Tensor:
    return -0.5 * t.square() + math.log(_LEVEL / _BELOW_KNEE / math.sqrt(2 * math.pi))


def _log_slope_above(log_rest: Tensor, gain: Tensor, tail: Tensor) -> Tensor:
    """Of `dt/dv = a + w / (1 - v)`."""
    return log_rest - (gain * log_rest.exp() + tail).log() + math.log(_SPAN)
