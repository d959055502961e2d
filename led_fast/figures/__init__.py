"""Pictures of what was learned."""

from led_fast.figures.density import density_figure, sample_figure
from led_fast.figures.images import grid_figure, interpolation_figure, refinement_figure, sorted_figure

__all__ = [
    "density_figure",
    "grid_figure",
    "interpolation_figure",
    "refinement_figure",
    "sample_figure",
    "sorted_figure",
]
