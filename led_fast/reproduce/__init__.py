"""Every 2-D experiment of the paper, by one command each."""

from led_fast.reproduce.ablations import ABLATIONS
from led_fast.reproduce.experiment import Experiment
from led_fast.reproduce.figure1 import FIGURE_1
from led_fast.reproduce.figure6 import FIGURE_6
from led_fast.reproduce.figure7 import FIGURE_7
from led_fast.reproduce.figure8 import FIGURE_8
from led_fast.reproduce.harness import Stopped
from led_fast.reproduce.penalty import perpendicular_penalty
from led_fast.reproduce.speed import SPEED
from led_fast.reproduce.table1 import TABLE_1

EXPERIMENTS: dict[str, Experiment] = {
    "table1": TABLE_1,
    "figure1": FIGURE_1,
    "figure6": FIGURE_6,
    "figure7": FIGURE_7,
    "figure8": FIGURE_8,
    "ablations": ABLATIONS,
    "penalty": perpendicular_penalty(),
    "speed": SPEED,
}

__all__ = ["EXPERIMENTS", "Experiment", "Stopped"]
