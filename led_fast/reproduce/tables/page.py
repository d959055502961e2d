"""The tables of the comparison, as Markdown."""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import mean
from typing import Any

from led_fast.reproduce.tables.cells import ANOMALY, LIKELIHOOD, TRUTH
from led_fast.reproduce.tables.datasets import ANOMALIES, NAMES
from led_fast.reproduce.tables.methods import LED, METHODS
from led_fast.reproduce.text import MISSING, markdown_table, over_seeds, spread

_Value = Callable[[dict[str, Any]], float | None]
Results = dict[tuple[str, str, str], list[dict[str, Any]]]
"""(task, data set, method) -> results, a seed each."""

GENERATOR = "generator"  # LED's own flow, which comes out of LED's cells
_GENERATOR_LABEL = "LED's own flow"
_KEY = (
    "Every method had {seconds:g} seconds of one processor core, the same training, validation and test rows (.7, .1, "
    ".2) and the same noise. Log-likelihoods are means over test rows, in nats a row and in the data's own units; a "
    "column on a lattice (whole numbers, few decimals) has uniform noise as wide as the lattice's step, and what is a "
    "lattice is told as `led-fast train` tells it, from training and validation rows. ± is the standard error of "
    "one test set; where there are several seeds, of rows, weights and noise, values are their means. Last column: LED "
    "less the best rival, {seeds}.\n"
)
_ANOMALY_KEY = (
    "AUROC of the log density (of the isolation forest: of its score) for rows of other classes than those trained on: "
    "shuttle, `Rad.Flow` is usual; letter, A, B and C; satellite, all but the three rarest classes.\n"
)
_GAIN_KEY = "The gain is what the tilt adds to LED's own flow, on test rows, ± its standard error.\n"
_MINUTES_KEY = "Minutes of processor time that fitting took, mean over data sets and seeds.\n"


def markdown(content: dict[str, Any]) -> str:
    """Likelihoods, the tilt's gain, anomalies, minutes, and what was not run."""
    results = by_method(content)
    seeds = max(len(reports) for reports in results.values())
    seconds = next(
        cell["settings"]["seconds"] for cell in content["cells"].values() if "seconds" in cell["settings"]
    )
    parts = [
        _KEY.format(seconds=seconds, seeds=over_seeds(seeds)),
        _table(results, LIKELIHOOD, NAMES, _likelihood, 2),
        _GAIN_KEY,
        _gains(results),
        _ANOMALY_KEY,
        _table(results, ANOMALY, ANOMALIES, _auroc, 4),
        _MINUTES_KEY,
        _minutes(results),
    ]
    absent = [method.label for name, method in METHODS.items() if not _ran(results, name)]
    absent += [data for data in NAMES if not any(key[1] == data for key in results)]
    if absent:
        parts.append(
            f'Not run: {", ".join(absent)}; `pip install "led_fast[tables]"` adds what is missing.\n'
        )
    return "\n".join(parts)


def by_method(content: dict[str, Any]) -> Results:
    """The results of all seeds by task, data set and method; LED's own flow is a method of its own."""
    results: Results = defaultdict(list)
    for name, cell in content["cells"].items():
        task, data, method, _ = name.split("-")
        result = cell["result"]
        results[task, data, method].append(result)
        if GENERATOR in result:
            results[task, data, GENERATOR].append(result[GENERATOR])
    return dict(results)


def lead(results: Results, task: str, data: str, value: _Value) -> tuple[str, list[float]]:
    """The rival of the best mean, and LED less that rival, seed by seed; empty where there is none to compare.

    A rival whose density broke with any seed is out. LED's broke: every difference is -inf.
    """
    values = {name: [value(report) for report in results.get((task, data, name), [])] for name in METHODS}
    ours = [-math.inf if number is None else number for number in values.pop(LED)]
    whole = {
        name: [number for number in numbers if number is not None]
        for name, numbers in values.items()
        if numbers and None not in numbers
    }
    if not whole or not ours:
        return "", []
    best = max(whole, key=lambda name: mean(whole[name]))
    return best, [a - b for a, b in zip(ours, whole[best], strict=True)]


def _table(
    results: Results,
    task: str,
    names: Sequence[str],
    value: _Value,
    digits: int,
) -> str:
    columns = {GENERATOR: _GENERATOR_LABEL} | {
        name: method.label for name, method in METHODS.items() if method.density or task == ANOMALY
    }
    if task == LIKELIHOOD:
        columns = {TRUTH: "truth"} | columns
    columns = {name: label for name, label in columns.items() if _ran(results, name)}
    rows = []
    for data in names:
        reports = {name: results.get((task, data, name), []) for name in columns}
        if any(reports.values()):
            cells = [_cell(reports[name], value, digits) for name in columns]
            rows.append(
                [_head(data, list(reports.values())), *cells, _verdict(results, task, data, value, digits)]
            )
    return markdown_table(["", *columns.values(), "LED less the best rival"], rows)


def _verdict(results: Results, task: str, data: str, value: _Value, digits: int) -> str:
    best, differences = lead(results, task, data, value)
    if not differences:
        return MISSING
    if -math.inf in differences:
        return f"**LED loses:** its density broke ({METHODS[best].label})"
    text = f"{spread(differences, digits)} ({METHODS[best].label})"
    return text if mean(differences) >= 0 else f"**LED loses:** {text}"


def _cell(reports: Sequence[dict[str, Any]], value: _Value, digits: int) -> str:
    values = [value(report) for report in reports]
    if not values:
        return MISSING
    broken = sum(report.get("not_finite", 0) for report in reports)
    if broken:
        return f"−∞ ({broken} rows)"
    text = f"{mean(v for v in values if v is not None):.{digits}f}"
    errors = [report["log_likelihood"]["standard_error"] for report in reports if "log_likelihood" in report]
    return f"{text} ± {mean(errors):.{digits}f}" if errors else text


def _head(data: str, reports: Sequence[Sequence[dict[str, Any]]]) -> str:
    sizes = [report for each in reports for report in each if "columns" in report]
    return f"{data} ({sizes[0]['columns']} columns, {sizes[0]['train_rows']:,} rows)" if sizes else data


def _gains(results: Results) -> str:
    rows = []
    for data in NAMES:
        gains = [report["gain"] for report in results.get((LIKELIHOOD, data, LED), []) if "gain" in report]
        known = [gain for gain in gains if gain["mean"] is not None]
        if known:
            value, error = mean(g["mean"] for g in known), mean(g["standard_error"] for g in known)
            rows.append([data, f"{value:.3f} ± {error:.3f}"])
    return markdown_table(["", "gain / nats a row"], rows)


def _minutes(results: Results) -> str:
    taken: dict[str, list[float]] = defaultdict(list)
    for (_, _, method), reports in results.items():
        taken[method] += [
            report["training_seconds"] / 60 for report in reports if "training_seconds" in report
        ]
    ran = [name for name in METHODS if taken[name]]
    return markdown_table(
        [METHODS[name].label for name in ran], [[f"{mean(taken[name]):.2f}" for name in ran]]
    )


def _ran(results: Results, method: str) -> bool:
    return any(key[2] == method for key in results)


def _likelihood(report: dict[str, Any]) -> float | None:
    return report["log_likelihood"]["mean"]


def _auroc(report: dict[str, Any]) -> float | None:
    return report["auroc"]
