"""The last map of images that are mostly black."""

from __future__ import annotations

import math
from statistics import NormalDist

import torch
from torch import Tensor, nn

from led_fast.flows.contract import log_dtype, next_number, normal_cdf, sum_event
from led_fast.flows.elementwise import LastMap, at_least

LEVEL = 1 / 256  # of dequantised bytes: black ones are uniform below it
_SPAN = 1 - LEVEL
KNEE = 2.3  # in t
_TAIL = -2.0
_STEEPNESS = 4.0  # dt/dv at the knee, a + w
_LEAST = 1e-30  # of a pixel; t is -27 there
_LEAST_LOG_SLOPE = -80.0  # of what a score is divided by
_FARTHEST = 1e30  # above the knee, where log(1 - v) is linear in t
_STEPS = 8  # of Newton's method, from within a few percent of the solution
_NORMAL = NormalDist()
_SCALE = LEVEL / _NORMAL.cdf(KNEE)  # x by Φ(t), on the darkest level
_X_TAIL = _SCALE * _NORMAL.cdf(_TAIL)
_RATE = _NORMAL.pdf(_TAIL) / _NORMAL.cdf(_TAIL)  # of log x in the tail


class DarkMap(LastMap):
    """Into the box (0, 1) of image data, with a normal distribution's bulk on the darkest of 256 grey levels.

    With `l = 1/256` and the knee `k = 2.3`, a value `t < k` becomes `x = l Φ(t) / Φ(k)`: there x is uniform, as black
    pixels are once they are dequantised, where t is standard normal. (Below t = -2, log x is linear, so that float32
    has a number for whatever a generator draws.) From k on, `x = l + (1 - l) v` with `t = k + a v - w log(1 - v)`. The
    logistic function instead spreads black out into logits of an exponential distribution, which no normal fits: it
    loses 0.42 nats a black pixel, and this map 0.01.

    The slope dx/dt jumps at l, by as much as the density of such images does, and pathwise gradients do not see what
    crosses a jump. In a KL divergence to another density behind this map the two jumps cancel, because `a + w = 4`
    whatever is learned; in other expectations, the entropy alone among them, they do not.

    Args:
        learned: whether w / (a + w), which begins at 1/8, is learned.

    Attributes:
        share: logit of the above, 0-d; a parameter, or a buffer where it is not learned.

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

    share: Tensor
    centre = 3.0

    def __init__(self, learned: bool = True) -> None:
        super().__init__()
        share = torch.tensor(1 / 8).logit()
        if learned:
            self.share = nn.Parameter(share)
        else:
            self.register_buffer("share", share)

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (x, Σ log dx/dt)."""
        x, log_slope, _ = self._forward(t.to(log_dtype(t)), *self._gain_and_tail())
        return x.to(t.dtype), sum_event(log_slope)

    def forward_with_score(self, t: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Layer`: the Jacobian is diagonal."""
        real, gain, tail = t.to(log_dtype(t)), *self._gain_and_tail()
        x, log_slope, rest = self._forward(real, gain, tail)
        with torch.no_grad():
            below = torch.where(real < _TAIL, _RATE, -real)
            of_log_slope = torch.where(real < KNEE, below, -tail / (gain * rest + tail).square())
            carried = (score - of_log_slope) / log_slope.clamp(min=_LEAST_LOG_SLOPE).exp()
        return x.to(t.dtype), sum_event(log_slope), carried.to(score.dtype)

    def by_elements(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See `LastMap`."""
        real, gain, tail = x.to(log_dtype(x)), *self._gain_and_tail()
        dark = real < LEVEL
        log_x = at_least(torch.where(dark, real, 0.5 * LEVEL), _LEAST).log()
        in_tail = log_x < math.log(_X_TAIL)
        far = _TAIL + (log_x - math.log(_X_TAIL)) / _RATE
        near = torch.special.ndtri(torch.where(in_tail | ~dark, 0.5 * LEVEL, real) / _SCALE)
        below = torch.where(in_tail, far, near)
        rest = at_least((1 - torch.where(dark, 0.5, real)) / _SPAN, 0.5 * torch.finfo(real.dtype).eps)
        log_rest = rest.log()
        above = KNEE + gain * (1 - rest) - tail * log_rest
        log_slope = torch.where(dark, _log_slope_below(below), _log_slope_above(log_rest, gain, tail))
        return torch.where(dark, below, above).to(x.dtype), log_slope

    def _gain_and_tail(self) -> tuple[Tensor, Tensor]:
        """a and w, neither of them 0."""
        share = 0.01 + 0.98 * self.share.sigmoid()
        return _STEEPNESS * (1 - share), _STEEPNESS * share

    def _forward(self, t: Tensor, gain: Tensor, tail: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x, log dx/dt and 1 - v, like t each."""
        dark, in_tail = t < KNEE, t < _TAIL
        log_rest = _log_rest(torch.where(dark, 1.0, t - KNEE), gain, tail)
        rest = log_rest.exp()
        far = _X_TAIL * (_RATE * (torch.where(in_tail, t, _TAIL) - _TAIL)).exp()
        near = _SCALE * normal_cdf(torch.where(in_tail | ~dark, 0.0, t))
        last = next_number(LEVEL, 0.0, t.dtype)  # which rounding must not go beyond
        x = torch.where(in_tail, far, torch.where(near < LEVEL, near, last))
        x = torch.where(dark, x, 1 - _SPAN * rest)
        log_slope = torch.where(
            dark, _log_slope_below(torch.where(dark, t, 0.0)), _log_slope_above(log_rest, gain, tail)
        )
        return x, log_slope, rest


def _log_rest(s: Tensor, gain: Tensor, tail: Tensor) -> Tensor:
    """log(1 - v) for `s = a v - w log(1 - v)`, s >= 0."""
    overflows = s > _FARTHEST
    # Nothing is learned there, because the tail's derivative would overflow, too.
    far, s = -s / tail.detach(), torch.where(overflows, 1.0, s)
    with torch.no_grad():
        # Both bounds lie above the solution of a concave equation, from where Newton's method never turns back.
        found = torch.minimum(-s / (gain + tail), (gain - s) / tail)
        for _ in range(_STEPS):
            found = _newton(found, s, gain, tail)
    # Two more steps, so that derivatives are those of the solution, up to the third.
    return torch.where(overflows, far, _newton(_newton(found, s, gain, tail), s, gain, tail))


def _newton(log_rest: Tensor, s: Tensor, gain: Tensor, tail: Tensor) -> Tensor:
    excess = -gain * log_rest.expm1() - tail * log_rest - s
    return log_rest + excess / (gain * log_rest.exp() + tail)


def _log_slope_below(t: Tensor) -> Tensor:
    normal = -0.5 * t.square() + math.log(_SCALE / math.sqrt(2 * math.pi))
    return torch.where(t < _TAIL, math.log(_RATE * _X_TAIL) + _RATE * (t - _TAIL), normal)


def _log_slope_above(log_rest: Tensor, gain: Tensor, tail: Tensor) -> Tensor:
    """Of `dt/dv = a + w / (1 - v)`."""
    return log_rest - (gain * log_rest.exp() + tail).log() + math.log(_SPAN)
