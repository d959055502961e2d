"""Log α where the weights are bounded: an interval that holds for every number of samples, without asymptotics."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from led_fast.density.mode import eval_mode
from led_fast.density.normalizer import MIN_BATCHES, NormalizerEstimate, summarize_log_weights
from led_fast.density.proposals import Proposal

MAX_HALF_WIDTH = 0.1  # nats, of the bound: where two standard errors of other estimates cease to be reliable
MAX_REPEATED = 0.05  # of the draws: float32 repeats few of a continuous proposal's
_ROUNDING = 0.01  # nats, of log q on the way out and back
_LARGEST_BET = 0.75  # of what can be lost
_TINY = 1e-300


@dataclass(frozen=True)
class BoundedEstimate(NormalizerEstimate):
    """An estimate of log α from weights that a cap bounds.

    `ci95` is the normal approximation from the spread of all weights. `reliable` asks `bound95` instead of the
    diagnostics of an unbounded tail: where that interval is narrow, no weight below the cap can have stayed unseen
    often enough to matter.

    Attributes:
        cap: no log-weight can be larger, in nats.
        bound95: interval that holds log α with a probability of 95 % or more, for any number of samples and any
            distribution of weights below the cap (`betting_interval`), in nats.
    """

    cap: float
    bound95: tuple[float, float]


def estimate_bounded_log_normalizer(
    critic: Callable[[Tensor], Tensor],
    proposal: Proposal,
    cap: float,
    samples: int = 100_000,
    batches: int = MIN_BATCHES,
) -> BoundedEstimate:
    """Estimates `log α = log E_q[exp(f(y) - log q(y))]` where `f - log q <= cap` everywhere, in eval mode.

    This holds where f = net + log q and the net is capped. Such weights leave no mass unseen where q hardly draws:
    at most `e^cap` times what q has there. The draws must be fresh: a net that was trained on a pool of draws has
    learned to be low at these, and their weights are too small without showing it. So the proposal is asked for
    draws here, and is not believed where draws come more than once, or where weights are above the cap, because the
    critic's log q of a draw is not the proposal's.

    Args:
        critic: f, (n, ...) -> (n,).
        proposal: q with support everywhere, `rsample_and_log_prob(n) -> (y, log_q)`.
        cap: of f - log q, in nats.
        samples: total number, rounded up to a multiple of `batches`.
        batches: that they are drawn in, at least 20.

    Example:
        >>> import torch
        >>> from led_fast import density, flows
        >>> base = flows.StandardNormal(2)
        >>> estimate = density.estimate_bounded_log_normalizer(base.log_prob, base, cap=0.0)
        >>> round(abs(estimate.value), 4), estimate.reliable
        (0.0, True)
    """
    if samples < batches:
        raise ValueError(
            f"estimate_bounded_log_normalizer: samples must be at least batches = {batches}, got {samples}"
        )
    log_weights, marks = [], []
    with torch.no_grad(), eval_mode(critic, proposal):
        for _ in range(batches):
            y, log_q = proposal.rsample_and_log_prob(-(-samples // batches))
            log_weights.append((critic(y) - log_q).double())
            marks.append(_mark(y))
    distinct = len(torch.cat(marks).unique())
    repeated = 1 - distinct / sum(map(len, marks))
    return summarize_bounded_log_weights(torch.stack(log_weights), cap, repeated)


def summarize_bounded_log_weights(log_weights: Tensor, cap: float, repeated: float = 0.0) -> BoundedEstimate:
    """Log α and its bound from independent log-weights below a cap, (batches >= 20, samples per batch).

    Args:
        log_weights: f - log q at fresh draws of q.
        cap: that they cannot exceed, in nats; by .01 they may, because log q is rounded.
        repeated: share of the draws that are others' repetitions.

    Example:
        >>> import torch
        >>> import math
        >>> from led_fast.density import summarize_bounded_log_weights
        >>> estimate = summarize_bounded_log_weights(torch.rand(20, 5000).log(), cap=0.0)
        >>> low, high = estimate.bound95
        >>> low < math.log(0.5) < high
        True
    """
    summary = summarize_log_weights(log_weights)
    nowhere = (-math.inf, math.inf)
    if math.isnan(summary.value):
        return BoundedEstimate(**asdict(summary), cap=cap, bound95=nowhere)
    flat = log_weights.flatten().double()
    top = cap + _ROUNDING
    bound, objections = nowhere, []
    if above := int((flat > top).sum()):
        objections.append(f"{above} of {len(flat)} log-weights are above the cap {cap:g}")
    else:
        low, high = betting_interval((flat - top).exp())
        bound = (math.log(low) + top if low > 0 else -math.inf, math.log(high) + top)
        wide = max(summary.value - bound[0], bound[1] - summary.value)
        if wide > MAX_HALF_WIDTH:
            objections.append(
                f"weights up to e^{cap:g} may hide {wide:.2f} > {MAX_HALF_WIDTH} nats: draw more"
            )
    if repeated > MAX_REPEATED:
        objections.append(f"{repeated:.0%} of the draws are repetitions: a pool, not fresh draws")
    relative = (flat - summary.value).exp()
    half_width = 1.96 * float(relative.std()) / math.sqrt(len(flat))
    low = summary.value + math.log1p(-half_width) if half_width < 1 else -math.inf
    decided = {
        "ci95": (low, summary.value + math.log1p(half_width)),
        "reliable": not objections,
        "reason": "; ".join(objections),
    }
    return BoundedEstimate(**{**asdict(summary), **decided}, cap=cap, bound95=bound)


def betting_interval(x: Tensor, level: float = 0.95) -> tuple[float, float]:
    """Interval that holds the mean of bounded variables with a probability of `level` at least, for any number.

    (Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting", predictable plug-in
    bets, Eq. 26.) Whoever bets on x being above m, or below, in a game that is fair if m is the mean, wins 2 / (1 -
    level) times the stake with a probability of (1 - level) / 2 at most. The interval holds the m at which neither
    has won as much. For weights as tables have them it is .4 to .85 times as wide as the empirical Bernstein bound
    (Maurer and Pontil 2009), and .01 to .25 times as Hoeffding's.

    Args:
        x: (n,) float64 in [0, 1], independent, in the order in which they were drawn.
        level: of confidence.

    Example:
        >>> import torch
        >>> from led_fast.density import betting_interval
        >>> low, high = betting_interval(torch.rand(10_000, dtype=torch.float64))
        >>> 0.45 < low < high < 0.55
        True
    """
    needed = math.log(2 / (1 - level))
    bets = _bets(x, needed)

    def above(m: float) -> bool:
        """Whether betting on a mean above m has won."""
        won = torch.log1p(bets.clamp(max=_LARGEST_BET / max(m, _TINY)) * (x - m)).sum()
        return bool(won >= needed)

    def below(m: float) -> bool:
        won = torch.log1p(-bets.clamp(max=_LARGEST_BET / max(1 - m, _TINY)) * (x - m)).sum()
        return bool(won >= needed)

    mean = float(x.mean())
    return _last(above, mean, 0.0), _last(below, mean, 1.0)


def _bets(x: Tensor, needed: float) -> Tensor:
    """The bet on each x, by the variance of those before it: a bet knows nothing of its own x, nor of later ones."""
    n = len(x)
    count = torch.arange(2, n + 2, dtype=x.dtype, device=x.device)
    means = (0.5 + x.cumsum(0)) / count
    variances = (0.25 + (x - means).square().cumsum(0)) / count
    before = torch.cat([variances.new_tensor([0.25]), variances[:-1]])
    return (2 * needed / (n * before)).sqrt()


def _last(won: Callable[[float], bool], inside: float, outside: float) -> float:
    """The end of the interval between a point that is in it and one that is not, from outside, by bisection."""
    for _ in range(50):
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if won(middle) else (middle, outside)
    return outside


def _mark(y: Tensor) -> Tensor:
    """A number a row, (n,), equal for equal rows and next to never for others."""
    rows = y.flatten(1).double()
    return rows @ torch.arange(1, rows.shape[1] + 1, dtype=rows.dtype, device=rows.device).sqrt()
