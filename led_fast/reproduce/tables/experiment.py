"""`led-fast reproduce tables --data DIR`: LED beside its rivals on tables of any number of columns."""

from functools import partial

from led_fast.reproduce.experiment import Experiment
from led_fast.reproduce.tables.cells import cells
from led_fast.reproduce.tables.page import markdown

_SECONDS = 60.0
_SEEDS = 3


def tables(directory: str) -> Experiment:
    """The experiment on a user's copies of the files.

    Args:
        directory: holds `letter.csv`, `shuttle.csv` and `satellite.csv`.
    """
    make = partial(cells, directory=directory, seconds=_SECONDS)
    return Experiment("Tables of any number of columns", _SEEDS, make, markdown, None, alone=True)
