"""Ablations: what each part of the default recipe is worth on the grid, in a quarter of its usual steps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from led_fast.data import open_source
from led_fast.figures.dots import DotColumn, dots_figure
from led_fast.reproduce.cell import Cell, Finished
from led_fast.reproduce.content import results_by_variant
from led_fast.reproduce.experiment import Experiment
from led_fast.reproduce.led import led_cell
from led_fast.reproduce.normalizer import estimates, generator_estimate
from led_fast.reproduce.text import diverged_note, markdown_table, over_seeds, spread
from led_fast.training import TrainConfig

_DATA = "grid"
_STEPS, _QUICK_STEPS = 500, 20


@dataclass(frozen=True)
class Variant:
    """The default with some settings changed, by dotted names."""

    label: str
    changes: dict[str, Any] = field(default_factory=dict)


def _integrals(samples: int, integrals: int) -> dict[str, Any]:
    return {"recipe.batches.integral_samples": samples, "recipe.batches.integrals": integrals}


VARIANTS = {
    "default": Variant("default: S = 384, ε = 0.5, k = 1"),
    "s1": Variant("S = 1 (256 estimates a step)", _integrals(1, 256)),
    "s64": Variant("S = 64 (4 estimates a step)", _integrals(64, 4)),
    "s256": Variant("S = 256", _integrals(256, 1)),
    "epsilon-low": Variant("ε = 0.1", {"model.coverage.share": 0.1}),
    "epsilon-high": Variant("ε = 0.9", {"model.coverage.share": 0.9}),
    "plain-b3": Variant(
        "one broad normal, no balance (B.3 as printed)",
        {"model.coverage.broad_share": 1.0, "model.coverage.balanced": False},
    ),
    "broad-only": Variant("one broad normal, balanced", {"model.coverage.broad_share": 1.0}),
    "unbalanced": Variant("blurred data, no balance", {"model.coverage.balanced": False}),
    "k-half": Variant("k = 0.5", {"recipe.generator_loss.entropy_weight": 0.5}),
    "k-tenth": Variant("k = 0.1", {"recipe.generator_loss.entropy_weight": 0.1}),
    "reverse-only": Variant("reverse KL alone (Eq. 5)", {"recipe.generator_loss.forward_weight": 0.0}),
    "no-floor": Variant("no floor under the target", {"model.floor.start": 0.0}),
    "no-noise": Variant("no noise on the data", {"model.noise.start": 0.0}),
    "one-normal": Variant("base: one normal, 2 blocks", {"model.generator.components": 1}),
    "one-normal-deep": Variant(
        "base: one normal, 6 blocks", {"model.generator.components": 1, "model.generator.blocks": 6}
    ),
    "inflated": Variant("4 features, learned slice", {"model.generator.features": 4}),
    "inflated-fixed": Variant(
        "4 features, slice of fixed σ",
        {"model.generator.features": 4, "model.generator.conditional": "gaussian"},
    ),
    "act-norm": Variant("ActNorm", {"model.generator.norm": "act"}),
    "running-norm": Variant("batch norm, running statistics", {"model.generator.norm": "running"}),
    "batch-norm": Variant("batch norm, batch statistics", {"model.generator.norm": "batch"}),
    "perpendicular": Variant("perpendicular penalty, direction", {"model.critic.penalty": "direction"}),
    "perpendicular-exact": Variant("perpendicular penalty, exact", {"model.critic.penalty": "exact"}),
}
_QUICK_VARIANTS = ("default", "s1", "plain-b3", "inflated-fixed")

_COLUMNS: dict[str, tuple[Callable[[dict[str, Any]], float | None], int]] = {
    "modes": (lambda r: r.get("modes"), 1),
    "% within 3σ": (lambda r: r.get("high_quality_percent"), 1),
    "% refined": (lambda r: r.get("high_quality_percent_refined"), 1),
    "KL(p* ‖ p_θ)": (lambda r: r.get("kl_data_model"), 4),
    "KL(q ‖ p_θ)": (lambda r: r.get("kl_generator_model"), 3),
    "ESS/S": (lambda r: generator_estimate(r).get("ess_fraction"), 3),
    "log α̂ − log α": (lambda r: _normalizer_error(r), 3),
}


def cells(seeds: int, quick: bool) -> list[Cell]:
    """Every variant with every seed."""
    made = []
    for seed in range(seeds):
        base = TrainConfig.of(open_source(_DATA), seed=seed, steps=_QUICK_STEPS if quick else _STEPS)
        for name in _QUICK_VARIANTS if quick else VARIANTS:
            made.append(led_cell(f"ablation-{name}-{seed}", base.changed(VARIANTS[name].changes)))
    return made


def markdown(content: dict[str, Any]) -> str:
    """One row a variant."""
    rows = []
    for name, reports in _reports(content).items():
        values = [
            spread([value(report) for report in reports], digits) for value, digits in _COLUMNS.values()
        ]
        rows.append([VARIANTS[name].label + diverged_note(reports), *values])
    seeds = max(len(reports) for reports in _reports(content).values())
    return (
        f"The grid, {_STEPS:,} steps, a quarter of the default; {over_seeds(seeds)}. Columns as in Table 1; the last "
        f"one is the generator's estimate of log α less the quadrature's.\n\n{markdown_table(['', *_COLUMNS], rows)}"
    )


def draw(path: Path, results: Sequence[Finished], note: str) -> None:
    """A dot a seed for the four quantities that matter."""
    names = list(dict.fromkeys(result.cell.name.rsplit("-", 1)[0] for result in results))
    reports = [[r.result for r in results if r.cell.name.rsplit("-", 1)[0] == name] for name in names]

    def column(key: str, scale: str, target: float | None, most: float | None = None) -> DotColumn:
        value = _COLUMNS[key][0]
        return DotColumn(key, [[value(report) for report in group] for group in reports], scale, target, most)

    columns = [
        column("modes", "linear", 25),
        column("% within 3σ", "linear", 98.9),
        column("KL(p* ‖ p_θ)", "log", None, most=1.0),
        column("ESS/S", "linear", 1),
    ]
    labels = [VARIANTS[name.removeprefix("ablation-")].label for name in names]
    dots_figure(path, labels, columns, note)


def _reports(content: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    return {name.removeprefix("ablation-"): reports for name, reports in results_by_variant(content).items()}


def _normalizer_error(report: dict[str, Any]) -> float | None:
    value = generator_estimate(report).get("value")
    exact = estimates(report).get("quadrature", {}).get("value")
    return None if value is None or exact is None else value - exact


ABLATIONS = Experiment("Ablations", 1, cells, markdown, draw)
