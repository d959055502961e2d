"""Pictures of what was learned."""

from led_fast.figures.density import density_figure, sample_figure
from led_fast.figures.images import grid_figure, interpolation_figure, refinement_figure, sorted_figure
from led_fast.figures.marginals import marginals_figure
from led_fast.figures.pairs import pairs_figure

__all__ = [
    "density_figure",
    "grid_figure",
    "interpolation_figure",
    "marginals_figure",
    "pairs_figure",
    "refinement_figure",
    "sample_figure",
    "sorted_figure",
]
