"""Table 1: modes, sample quality and divergences on the ring and the grid, beside four baselines."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from led_fast.data import open_source
from led_fast.density import Verdict
from led_fast.figures.points import Panel, points_figure
from led_fast.random_state import seeded
from led_fast.reproduce import flow
from led_fast.reproduce.cell import Cell, Finished
from led_fast.reproduce.content import results_by_variant
from led_fast.reproduce.experiment import Experiment
from led_fast.reproduce.led import gan_cell, led_cell
from led_fast.reproduce.literature import TABLE1
from led_fast.reproduce.normalizer import generator_estimate
from led_fast.reproduce.quality import DRAWN, density_quality, mixture_source, sample_quality
from led_fast.reproduce.text import MISSING, diverged_note, markdown_table, over_seeds, spread
from led_fast.training import TrainConfig

DATA = ("ring", "grid")
_LED = ("paper", "default", "paper_printed")  # presets
_STEPS = {
    "ring": {"paper": 5_000, "default": 2_000, "paper_printed": 20_000, "gan": 2_000, "flow": 2_000},
    "grid": {"paper": 25_000, "default": 2_000, "paper_printed": 20_000, "gan": 2_000, "flow": 2_000},
}
_QUICK_STEPS = 40
_FLOW: dict[str, float] = {"learning_rate": 3e-3, "transforms": 5, "width": 64, "bins": 16}
_METHODS = {
    "oracle": "true samples",
    "paper": "**LED, `paper`**",
    "default": "**LED, `default`**",
    "paper_printed": "LED, `paper_printed`",
    "gan": "GAN of the same networks",
    "flow": "neural spline flow",
    "kde": "KDE on LED's samples",
}
_Value = Callable[[dict[str, Any]], float | None]
_COLUMNS: dict[str, tuple[_Value, int]] = {
    "modes": (lambda r: r.get("modes"), 1),
    "% within 3σ": (lambda r: r.get("high_quality_percent"), 1),
    "% refined": (lambda r: r.get("high_quality_percent_refined"), 1),
    "% bridge": (lambda r: r.get("bridge_percent"), 2),
    "KL(p* ‖ p_θ)": (lambda r: r.get("kl_data_model"), 4),
    "KL(q ‖ p_θ)": (lambda r: r.get("kl_generator_model"), 3),
    "NLL": (lambda r: r.get("held_out_nll"), 3),
    "ESS/S": (lambda r: generator_estimate(r).get("ess_fraction"), 3),
}
_OTHER_ESTIMATES = {
    "broad": "broad proposal",
    "annealed_forward": "annealed, forward",
    "annealed_reverse": "annealed, reverse",
}
_KEY = (
    "A mode counts with one of 2,500 samples within 3σ of its center; % within 3σ is the share of samples that near to "
    "any mode (true samples: 98.9 %, more is under-dispersion); refined samples are importance-resampled from the "
    "generator's; % bridge is the share of 20,000 samples beyond 3σ of every mode (true: 1.11 %). KL(p* ‖ p_θ) is from "
    "the truth to the density, KL(q ‖ p_θ) from the generator to it; NLL is that of fresh points, in nats, and at best "
    "the entropy. Numbers: {seeds}."
)


def cells(seeds: int, quick: bool) -> list[Cell]:
    """Truth, LED of each preset, a GAN and, where zuko is installed, a flow: for both data sets and every seed."""
    made = []
    for seed in range(seeds):
        for data in DATA:
            common: dict[str, Any] = {"data": data, "seed": seed}
            made.append(Cell(f"{data}-oracle-{seed}", judge_truth, common))
            made += [preset_cell(data, preset, seed, quick) for preset in _LED]
            gan = TrainConfig.of(open_source(data), seed=seed, steps=_steps(data, "gan", quick))
            made.append(gan_cell(f"{data}-gan-{seed}", gan))
            if flow.available():
                settings = {**common, "steps": _steps(data, "flow", quick), **_FLOW}
                made.append(Cell(f"{data}-flow-{seed}", flow.train_flow, settings))
    return made


def preset_cell(data: str, preset: str, seed: int, quick: bool) -> Cell:
    """LED of a preset, for as many steps as the table has."""
    config = TrainConfig.of(open_source(data), preset, seed, _steps(data, preset, quick))
    return led_cell(f"{data}-{preset}-{seed}", config)


def _steps(data: str, method: str, quick: bool) -> int:
    return _QUICK_STEPS if quick else _STEPS[data][method]


def judge_truth(folder: Path, data: str, seed: int) -> dict[str, Any]:
    """The oracle's row: what true samples and the true density reach."""
    _, truth = mixture_source(data)
    with seeded(seed):
        samples = truth.sample(DRAWN)
        np.save(folder / "samples.npy", samples[:2500].float().numpy())
        return {**sample_quality(samples, truth), **density_quality(truth.log_prob, truth)}


def markdown(content: dict[str, Any]) -> str:
    """A table a data set: ours, then what others reported."""
    variants = results_by_variant(content)
    parts = [_KEY.format(seeds=over_seeds(len(variants["ring-default"])))]
    for data in DATA:
        reports = {method: variants.get(f"{data}-{method}", []) for method in _METHODS}
        reports["kde"] = [report["kde"] for report in reports["default"] if "kde" in report]
        _, truth = mixture_source(data)
        rows = [[_label(method, reports[method]), *_row(reports[method])] for method in _METHODS]
        head = f"### {data}, {len(truth.centers)} modes, entropy {truth.entropy:.4f} nats\n"
        parts.append(f"{head}\n{markdown_table(['', *_COLUMNS], rows)}")
        estimated = {preset: [r for r in reports[preset] if "log_normalizer" in r] for preset in _LED}
        parts.append(_normalizers(estimated))
        others = [
            [o.method, _number(o.modes), _number(o.high_quality_percent), o.source] for o in TABLE1[data]
        ]
        header = ["reported elsewhere", "modes", "% within 3σ", "source"]
        parts.append(markdown_table(header, others))
    return "\n".join(part if part.endswith("\n") else part + "\n" for part in parts)


def _normalizers(reports: dict[str, list[dict[str, Any]]]) -> str:
    """The four sampled estimates of log α of each preset's runs, less the quadrature's."""
    rows = [[_METHODS[preset], *_estimates(found)] for preset, found in reports.items() if found]
    header = ["log α less quadrature: generator", *_OTHER_ESTIMATES.values(), "reliable", "KL gate passed"]
    return markdown_table(["", *header], rows)


def _estimates(reports: list[dict[str, Any]]) -> list[str]:
    verdicts = [Verdict.from_json(report["log_normalizer"]) for report in reports]
    evidence = [verdict.evidence for verdict in verdicts]
    row = [spread([e["generator"]["value"] - e["quadrature"]["value"] for e in evidence], 4)]
    for name in _OTHER_ESTIMATES:
        values = [e[name]["value"] - e["quadrature"]["value"] for e in evidence if name in e]
        objecting = sum(name in e and not e[name]["reliable"] for e in evidence)
        note = f" (flagged unreliable: {objecting} of {len(values)})" if objecting else ""
        row.append(spread(values, 3) + note)
    reliable = sum(verdict.reliable for verdict in verdicts)
    gates = sum(report["kl_gate"]["passed"] for report in reports if "kl_gate" in report)
    return [*row, f"{reliable} of {len(verdicts)}", f"{gates} of {len(verdicts)}"]


def draw(path: Path, results: Sequence[Finished], note: str) -> None:
    """Samples of every method, first seed."""
    folders = {result.cell.name: result.folder for result in results}
    rows = []
    for data in DATA:
        _, truth = mixture_source(data)
        shown = [
            ("true samples", "oracle", "samples"),
            ("LED, paper", "paper", "samples"),
            ("LED, paper, refined", "paper", "refined"),
            ("LED, default", "default", "samples"),
            ("GAN", "gan", "samples"),
            ("spline flow", "flow", "samples"),
        ]
        panels = [
            Panel(title, _load(folders.get(f"{data}-{method}-0"), name)) for title, method, name in shown
        ]
        rows.append((truth.centers, panels))
    points_figure(path, rows, DATA, note=note)


def _load(folder: Path | None, name: str) -> Tensor | None:
    path = folder and folder / f"{name}.npy"
    return torch.from_numpy(np.load(path)) if path and path.exists() else None


def _label(method: str, reports: list[dict[str, Any]]) -> str:
    label = _METHODS[method]
    if method == "flow" and not reports:
        return f"{label}: not run, needs `pip install zuko`"
    steps = {report["steps"] for report in reports if "steps" in report}
    label = f"{label}, {steps.pop():,} steps" if len(steps) == 1 else label
    return label + diverged_note(reports)


def _row(reports: list[dict[str, Any]]) -> list[str]:
    return [spread([value(report) for report in reports], digits) for value, digits in _COLUMNS.values()]


def _number(value: float | None) -> str:
    return MISSING if value is None else f"{value:g}"


TABLE_1 = Experiment("Table 1: the ring and the grid", 5, cells, markdown, draw)
