"""Coarse log-normalisers: those of critics that are all but untrained are most of the time of a short run."""

from dataclasses import replace
from functools import partial

from led_fast.density import annealing, quadrature_log_normalizer
from led_fast.evaluation import estimate_image_normalizer, normalizer
from led_fast.kinds.images import task
from led_fast.kinds.tables import kind as tables_kind
from led_fast.kinds.tables import task as tables_task
from led_fast.kinds.tables.settings import Pool, preset_of
from led_fast.models.tables import TableCriticConfig, TableGeneratorConfig


def coarsen(change=setattr):
    """Makes the estimates of log α at the end of a run coarse; `change` may be that of a monkeypatch."""
    change(
        normalizer, "quadrature_log_normalizer", partial(quadrature_log_normalizer, max_evaluations=50_000)
    )
    change(normalizer, "_CELLS", 48)
    change(normalizer, "_TEMPERATURES", 10)
    change(normalizer, "_CHAINS", 40)
    change(annealing, "_WARM_UP_SPREAD", 3.0)
    change(annealing, "_WARM_UP_TRANSITIONS", 1)
    change(task, "estimate_image_normalizer", partial(estimate_image_normalizer, temperatures=3, chains=40))
    change(task, "_NORMALIZER_SAMPLES", 40)


def shrink_tables(change=setattr):
    """Makes networks and pools of tables small, and log α coarse."""
    sizes = {
        "generator": TableGeneratorConfig(blocks=1, width=8),
        "critic": TableCriticConfig(width=8),
        "pool": Pool(draws=1000, rows=1000, validation_draws=500, validation_rows=500),
    }

    def small_preset_of(source, cells):
        preset = preset_of(source, cells)
        return preset._replace(model=replace(preset.model, **sizes))

    change(tables_kind, "preset_of", small_preset_of)
    change(tables_task, "_NORMALIZER_DRAWS", 1000)
