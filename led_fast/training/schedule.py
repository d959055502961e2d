"""Values that change over a run, as functions of the share of its steps that is done, from 0 to 1.

None of them looks at a clock, so a resumed run repeats them exactly.
"""

import math


def cosine_decay(at: float, begin: float, last: float, end: float = 1.0) -> float:
    """1 until `begin`, then half a cosine down to `last` at `end`, where it stays."""
    if at <= begin:
        return 1.0
    share = min((at - begin) / (end - begin), 1.0)
    return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * share))


def geometric(at: float, start: float, end: float, begin: float, finish: float) -> float:
    """`start` until `begin`, `end` from `finish` on, geometrically in between; always 0 if `start` is 0."""
    if start == 0:
        return 0.0
    share = min(max((at - begin) / (finish - begin), 0.0), 1.0)
    return start * (end / start) ** share


def linear(at: float, start: float, end: float, begin: float, finish: float) -> float:
    """`start` until `begin`, `end` from `finish` on, along a straight line in between."""
    share = min(max((at - begin) / (finish - begin), 0.0), 1.0)
    return start + (end - start) * share
