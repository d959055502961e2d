"""A normaliser that is not reliable is said to be so wherever log densities come out."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from led_fast.files import read_json
from led_fast.training import RunDirectory


def doubt_about(run: RunDirectory) -> str:
    """What the last report of a density has against its log α; empty where it is reliable."""
    if not run.report.is_file():
        return f"log α was never checked: led-fast evaluate {run.path}"
    return doubt(read_json(run.report)["log_normalizer"])


def doubt(normalizer: Mapping[str, Any]) -> str:
    """The same of a report's `log_normalizer`."""
    reason = normalizer["reason"]
    return "" if normalizer["reliable"] else f"UNRELIABLE log α, by which all densities may be off: {reason}"


def warn(text: str) -> None:
    """Prints a doubt, if there is one, on standard error."""
    if text:
        Console(stderr=True).print(f"led-fast: {text}", highlight=False, soft_wrap=True, markup=False)
