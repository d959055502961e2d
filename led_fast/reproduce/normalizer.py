"""What a report says of log α, for the tables."""

from typing import Any

from led_fast.density import Verdict


def estimates(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The estimates of log α in a report by name; none where it is of a method that has no log α, or diverged."""
    found = report.get("log_normalizer")
    return Verdict.from_json(found).evidence if found else {}


def generator_estimate(report: dict[str, Any]) -> dict[str, Any]:
    """The one by samples of the generator, or nothing."""
    return estimates(report).get("generator", {})
