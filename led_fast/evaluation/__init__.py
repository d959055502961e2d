"""How good a trained density is, and how far its numbers can be believed."""

from led_fast.evaluation.modes import ModeCount, count_modes
from led_fast.evaluation.normalizer import quadrature_in_data_coordinates
from led_fast.evaluation.report import Evaluation, evaluate
from led_fast.evaluation.table import report_table

__all__ = [
    "Evaluation",
    "ModeCount",
    "count_modes",
    "evaluate",
    "quadrature_in_data_coordinates",
    "report_table",
]
