"""The verdict on log α: one rule, whatever the kind of data, by estimates that do not share their blind spots."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from led_fast.density.json_values import finite
from led_fast.density.normalizer import NormalizerEstimate
from led_fast.density.quadrature import QuadratureEstimate

MARKOV = 3.0  # nats; an unbiased estimate exceeds log α by more with a probability of 5 % at most
_KINDS_WANTED = 2

Role = Literal["exact", "bounded", "unbiased", "bound"]


class UnreliableNormalizerWarning(UserWarning):
    """Log densities, or refined samples, rest on a log α that is not to be believed."""


@dataclass(frozen=True)
class Witness:
    """An estimate of log α, what it cannot see, and what its word is worth.

    Attributes:
        estimate: by its own diagnostics `reliable`, or not and for what `reason`.
        blind_to: where it cannot see mass. Witnesses with the same blind spot are one kind, and count once.
        role: `exact`: it integrates over the whole space, and decides alone. `bounded`: its weights are bounded, and
            it draws wherever there is mass, so that it has no blind spot and needs no second kind. `unbiased`: its
            mean weight is α. `bound`: it can contradict, if it is reliable, and never confirm.
    """

    estimate: NormalizerEstimate | QuadratureEstimate
    blind_to: str
    role: Role = "unbiased"

    def to_json(self) -> dict[str, Any]:
        """The estimate's fields, and the two of its own."""
        estimate = self.estimate
        own = estimate.to_json() if isinstance(estimate, QuadratureEstimate) else asdict(estimate)
        return finite({**own, "blind_to": self.blind_to, "role": self.role})


@dataclass(frozen=True)
class Verdict:
    """Log α, and whether to believe it.

    Attributes:
        value: log α in nats.
        interval: its 95 % interval, in nats; infinite where it is not known.
        reliable: whether nothing speaks against it.
        reason: what does; empty where nothing does.
        evidence: the witnesses by name, JSON values, see `Witness`.
    """

    value: float
    interval: tuple[float, float]
    reliable: bool
    reason: str
    evidence: dict[str, dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """JSON values, which `from_json` takes back; None stands for what is not finite."""
        values = {**asdict(self), "interval": list(self.interval)}
        return finite(values)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Verdict:
        """Reads what `to_json` made, or `log_normalizer` of a report of version 0.1.0, of points or images.

        Raises:
            LookupError, OverflowError, TypeError, ValueError: it is none of these.
        """
        if not isinstance(values["reliable"], bool) or not isinstance(values["reason"], str):
            raise TypeError(
                "Verdict.from_json: reliable must be true or false and reason a text, got "
                f"{values['reliable']!r} and {values['reason']!r}"
            )
        if "evidence" in values:
            interval, evidence = values["interval"], dict(values["evidence"])
        elif "used" in values:
            evidence = {name: value for name, value in values.items() if isinstance(value, Mapping)}
            values, interval = {**values, "value": values["used"]}, (None, None)
        else:
            evidence, interval = _plane_evidence_of_0_1(values), values["ci95"]
        low, high = interval
        return cls(
            value=math.nan if values["value"] is None else float(values["value"]),
            interval=(-math.inf if low is None else float(low), math.inf if high is None else float(high)),
            reliable=values["reliable"],
            reason=values["reason"],
            evidence=evidence,
        )


def judge(
    claim: str | float,
    witnesses: Mapping[str, Witness],
    interval: tuple[float, float] = (-math.inf, math.inf),
    tolerance: float = 0.0,
) -> Verdict:
    """Judges a value of log α by witnesses. It is reliable only where

    - the claim, if it is a witness's, is reliable by its own diagnostics;
    - an exact witness is reliable, or a bounded one, or unbiased ones of two kinds, because one kind alone has one
      blind spot: a generator that drops a mode misses the mode's share of α, and none of its weights tells;
    - every reliable witness, or where there is an exact one that one alone, has the value within its interval's
      width, and `tolerance`; a bounded one, which no second kind confirms, within half of it. The width of the claim's
      own interval is added in quadrature, if it is a witness's;
    - no unbiased witness, reliable or not, exceeds the value by more than 3 nats. The mean of its weights is α,
      and a mean is seldom exceeded 20 times (Markov's inequality).

    What agreement rules out is as fine as the intervals: a dropped mode of 5 % of the mass changes log α by .05.

    Args:
        claim: the name of the witness whose value is judged; or a value from elsewhere.
        witnesses: by name.
        interval: of a value from elsewhere.
        tolerance: in nats: the error that a value from elsewhere may have itself.

    Example:
        >>> from led_fast import density, flows
        >>> estimate = density.estimate_log_normalizer(lambda y: -y.square().sum(1) / 2, flows.StandardNormal(2))
        >>> verdict = density.judge("generator", {"generator": density.Witness(estimate, "where it never draws")})
        >>> verdict.reliable, verdict.reason
        (False, 'no other kind of estimate is reliable than generator')
    """
    own = witnesses[claim].estimate if isinstance(claim, str) else None
    value = float(claim) if own is None else own.value  # type: ignore[arg-type]
    exact = {name: witness for name, witness in witnesses.items() if witness.role == "exact"}
    objections = []
    if own is not None and not own.reliable:
        objections.append(own.reason or f"{claim} is not reliable")
    elif not exact:
        objections.append(_too_few(witnesses))
    own_width = 0.0 if own is None else _width(own)
    for name, witness in (exact or witnesses).items():
        estimate, difference = witness.estimate, witness.estimate.value - value
        judges = estimate.reliable or witness.role == "exact"
        width = _width(estimate) / (2 if witness.role == "bounded" else 1)
        if judges and not abs(difference) <= math.hypot(own_width, width) + tolerance:
            objections.append(f"{name} differs by {difference:+.3f} nats")
        elif witness.role != "bound" and difference > MARKOV:
            objections.append(f"{name}, which is unbiased, exceeds it by {difference:.1f} nats")
        if witness.role == "exact" and name != claim:
            objections.append(estimate.reason)
    reason = "; ".join(filter(None, objections))
    evidence = {name: witness.to_json() for name, witness in witnesses.items()}
    low, high = interval if own is None else own.ci95
    known = (-math.inf if math.isnan(low) else low, math.inf if math.isnan(high) else high)
    return Verdict(value, known, not reason, reason, evidence)


def by_quadrature(quadrature: QuadratureEstimate) -> Verdict:
    """The verdict on a log α that is the quadrature's own.

    Example:
        >>> from led_fast import density
        >>> quadrature = density.quadrature_log_normalizer(lambda y: -y.square().sum(1) / 2, (-9, -9), (9, 9))
        >>> density.by_quadrature(quadrature).reliable
        True
    """
    return judge("quadrature", {"quadrature": exactly(quadrature)})


def exactly(quadrature: QuadratureEstimate) -> Witness:
    """Quadrature as a witness.

    Example:
        >>> from led_fast import density
        >>> quadrature = density.quadrature_log_normalizer(lambda y: -y.square().sum(1) / 2, (-9, -9), (9, 9))
        >>> density.exactly(quadrature).role
        'exact'
    """
    return Witness(quadrature, "outside of the box", "exact")


def _too_few(witnesses: Mapping[str, Witness]) -> str:
    reliable = {n: w for n, w in witnesses.items() if w.estimate.reliable and w.role != "bound"}
    kinds = {witness.blind_to for witness in reliable.values()}
    if not reliable:
        return "no estimate is reliable"
    if len(kinds) >= _KINDS_WANTED or any(witness.role == "bounded" for witness in reliable.values()):
        return ""
    others = ", ".join(name for name, w in witnesses.items() if name not in reliable and w.role != "bound")
    beside = f" (not {others})" if others else ""
    return f"no other kind of estimate is reliable than {' and '.join(reliable)}{beside}"


def _width(estimate: NormalizerEstimate | QuadratureEstimate) -> float:
    low, high = estimate.ci95
    return high - low


def _plane_evidence_of_0_1(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Version 0.1.0 laid the generator's estimate flat, and had the verdict's `reliable` and `reason` over its own."""
    nested = ("broad", "annealed_forward", "annealed_reverse")
    flat = {k: v for k, v in values.items() if k not in nested and not k.startswith("quadrature")}
    found = {"generator": {**flat, "reliable": None, "reason": None}}
    found |= {name: dict(values[name]) for name in nested if values.get(name) is not None}
    if "quadrature" in values:
        parts = (values[key] for key in ("quadrature", "quadrature_error", "quadrature_edge_share"))
        value, error, edge_share = (math.nan if part is None else part for part in parts)
        found["quadrature"] = exactly(QuadratureEstimate(value, error, edge_share, 0)).to_json()
    return found
