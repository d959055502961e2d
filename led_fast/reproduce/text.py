"""Numbers and tables as Markdown."""

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

MISSING = "—"


def spread(values: Sequence[float | None], digits: int) -> str:
    """Mean ± standard deviation of the values that are there; the value alone where there is one."""
    present = [value for value in values if value is not None]
    if not present:
        return MISSING
    if len(present) == 1:
        return f"{present[0]:.{digits}f}"
    return f"{mean(present):.{digits}f} ± {stdev(present):.{digits}f}"


def over_seeds(count: int) -> str:
    """What the numbers of a table are, by the number of seeds."""
    return "one seed" if count == 1 else f"mean ± standard deviation over {count} seeds"


def diverged_note(reports: Sequence[dict[str, Any]]) -> str:
    """How many runs of a row diverged, where any did; the row's means are over the others."""
    diverged = sum("diverged" in report for report in reports)
    return f" ({diverged} of {len(reports)} diverged)" if diverged else ""


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
