"""What an experiment is: cells to run, and how their results become a table and a picture."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from led_fast.reproduce.cell import Cell, Finished


@dataclass(frozen=True)
class Experiment:
    """One of the paper's tables or figures.

    Attributes:
        title: of its page.
        seeds: how many, where the user names no number; 0 where nothing is random.
        cells: (number of seeds, quick) -> the cells to run.
        markdown: content of the result's JSON file -> tables and captions.
        draw: (file, results, note) writes the picture; None where there is none.
        alone: whether its cells must not run beside one another, since they measure time.
    """

    title: str
    seeds: int
    cells: Callable[[int, bool], list[Cell]]
    markdown: Callable[[dict[str, Any]], str]
    draw: Callable[[Path, Sequence[Finished], str], None] | None
    alone: bool = False
