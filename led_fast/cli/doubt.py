"""A normaliser that is not reliable is said to be so wherever log densities come out."""

from led_fast.density import Verdict
from led_fast.terminal import console, say


def doubt(verdict: Verdict | None) -> str:
    """What a verdict has against log α; empty where there is nothing."""
    if verdict is None:
        return "log α was never checked: led-fast evaluate does"
    return (
        "" if verdict.reliable else f"UNRELIABLE log α, by which all densities may be off: {verdict.reason}"
    )


def warn(text: str) -> None:
    """Prints a doubt, if there is one, on standard error."""
    if text:
        say(console(stderr=True), f"led-fast: {text}")
