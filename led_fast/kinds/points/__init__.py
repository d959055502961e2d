"""Points in the plane: the ring, the grid, and files of two continuous columns."""

from led_fast.kinds.points.kind import KIND
from led_fast.kinds.points.settings import PRESETS, Coverage, Floor, Noise, PointsModel, Sharpening
from led_fast.kinds.points.task import PointsTask

__all__ = ["KIND", "PRESETS", "Coverage", "Floor", "Noise", "PointsModel", "PointsTask", "Sharpening"]
