"""Pictures of what was learned."""

from led_fast.figures.density import density_figure, sample_figure

__all__ = ["density_figure", "sample_figure"]
