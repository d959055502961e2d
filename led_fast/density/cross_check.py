"""Whether independent estimates of log α agree: what the diagnostics of one alone cannot tell."""

from __future__ import annotations

import math
from typing import NamedTuple

from led_fast.density.annealed import AnnealedBracket
from led_fast.density.normalizer import NormalizerEstimate
from led_fast.density.quadrature import QuadratureEstimate

MAX_EDGE_SHARE = 1e-3  # of the mass, in the outermost cells of a quadrature
MAX_QUADRATURE_ERROR = 0.01  # nats; one that did not converge judges nothing
_STANDARD_ERRORS = 3.0  # beyond which two estimates differ
_MARKOV = 3.0  # nats; an unbiased estimate exceeds α by their exponential with a probability of 5 % at most


class CrossCheck(NamedTuple):
    """Whether the generator's estimate of log α can be believed, and what objects; empty where nothing does."""

    reliable: bool
    reason: str


def cross_check(
    generator: NormalizerEstimate,
    broad: NormalizerEstimate,
    annealed: AnnealedBracket | None = None,
    quadrature: QuadratureEstimate | None = None,
) -> CrossCheck:
    """Judges the generator's estimate of log α by estimates that do not share its blind spots.

    A generator that drops a mode misses the mode's share of α, and no diagnostic of its weights sees that. So it is
    reliable only where its own diagnostics do not object, and

    - quadrature agrees with it, has converged and seen the whole mass; nothing else counts then;
    - or, without quadrature, a reliable estimate from a broad proposal or by annealing from one agrees with it
      within 3 standard errors, and no reliable one contradicts it. An unbiased estimate far above it, by more
      than 3 nats, contradicts it whether reliable or not: the mean of its weights is α, and a mean is seldom
      exceeded 20 times (Markov's inequality).

    What agreement rules out is as fine as the intervals: a dropped mode of 5 % of the mass changes log α by .05.

    Args:
        generator: by importance sampling from the generator.
        broad: by importance sampling from a proposal with support everywhere.
        annealed: from such a proposal, if it was done.
        quadrature: on the plane.
    """
    objections = [generator.reason]
    if quadrature is not None:
        objections += _judge_by_quadrature(generator, quadrature)
    else:
        unbiased = {"the broad proposal": broad}
        if annealed is not None:
            unbiased["annealing"] = annealed.forward
        bounds = {"reverse annealing": annealed.reverse} if annealed and annealed.reverse else {}
        for name, witness in {**unbiased, **bounds}.items():
            difference = witness.value - generator.value
            if witness.reliable and not _agree(generator, witness):
                objections.append(f"{name} differs by {difference:+.3f} nats")
            elif name in unbiased and witness.value > generator.ci95[1] + _MARKOV:
                objections.append(f"{name}, which is unbiased, exceeds it by {difference:.1f} nats")
        if not any(witness.reliable for witness in unbiased.values()):
            objections.append("no second estimate is reliable")
    reason = "; ".join(filter(None, objections))
    return CrossCheck(reliable=not reason, reason=reason)


def _judge_by_quadrature(generator: NormalizerEstimate, quadrature: QuadratureEstimate) -> list[str]:
    low, high = generator.ci95
    distance = abs(generator.value - quadrature.value)
    objections = []
    if not distance <= high - low + quadrature.error:
        objections.append(f"differs from quadrature by {distance:.3f} nats")
    if not quadrature.error <= MAX_QUADRATURE_ERROR:
        objections.append(f"quadrature has an error of {quadrature.error:.2g} nats")
    if not quadrature.edge_share <= MAX_EDGE_SHARE:
        share = 100 * quadrature.edge_share
        objections.append(f"{share:.1f} % of the mass lies at the edge of the quadrature's box")
    return objections


def _agree(a: NormalizerEstimate, b: NormalizerEstimate) -> bool:
    widths = [high - low for low, high in (a.ci95, b.ci95)]  # 2 · 1.96 standard errors each, or a little more
    return abs(a.value - b.value) <= _STANDARD_ERRORS / (2 * 1.96) * math.hypot(*widths)
