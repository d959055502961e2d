"""Coarse log-normalisers: those of critics that are all but untrained are most of the time of a short run."""

from functools import partial

from led_fast.density import quadrature_log_normalizer
from led_fast.evaluation import estimate_image_normalizer, normalizer
from led_fast.kinds.images import task


def coarsen(change=setattr):
    """Makes the estimates of log α at the end of a run coarse; `change` may be that of a monkeypatch."""
    change(
        normalizer, "quadrature_log_normalizer", partial(quadrature_log_normalizer, max_evaluations=50_000)
    )
    change(normalizer, "_CELLS", 48)
    change(normalizer, "_TEMPERATURES", 10)
    change(normalizer, "_CHAINS", 40)
    change(task, "estimate_image_normalizer", partial(estimate_image_normalizer, temperatures=3, chains=40))
    change(task, "_NORMALIZER_SAMPLES", 40)
