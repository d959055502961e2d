"""A normaliser that is not reliable is said to be so wherever log densities come out."""

from rich.console import Console

from led_fast.density import Verdict
from led_fast.training import RunDirectory
from led_fast.training.run import read_json


def doubt_about(run: RunDirectory) -> str:
    """What the last report of a density of images has against its log α; empty where it is reliable."""
    if not run.report.is_file():
        return f"log α was never checked: led-fast evaluate {run.path}"
    return doubt(Verdict.from_json(read_json(run.report)["log_normalizer"]))


def doubt(verdict: Verdict | None) -> str:
    """What a verdict has against log α; empty where there is none."""
    if verdict is None or verdict.reliable:
        return ""
    return f"UNRELIABLE log α, by which all densities may be off: {verdict.reason}"


def warn(text: str) -> None:
    """Prints a doubt, if there is one, on standard error."""
    if text:
        Console(stderr=True).print(f"led-fast: {text}", highlight=False, soft_wrap=True, markup=False)
