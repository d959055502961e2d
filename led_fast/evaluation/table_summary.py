"""A report of a table's density, as tables for people."""

import math
from typing import Any

from rich.table import Table

_SHOWN = 8  # columns with the largest distances
_WIDTH = 3.92  # of a 95 % interval, in standard errors
_SHOWN_GAIN = 5e-5  # nats: less is 0 in four digits


def table_summary(report: dict[str, Any]) -> list[Table]:
    """Two tables of what `evaluate_table` reports: one row a quantity, one row a column, the worst sampled ones."""
    return [_quantities(report), _worst_columns(report)]


def _quantities(report: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("quantity")
    table.add_column("value", justify="right")
    table.add_column("to compare", style="dim")
    normalizer, gate, anomaly = report["log_normalizer"], report["kl_gate"], report["anomaly"]
    rows = [
        (
            "log likelihood of test rows",
            _nats(report["test_log_likelihood"]),
            report["test_log_likelihood_reason"]
            or f"± {_number(report['test_log_likelihood_standard_error'])}, {report['test_rows']} rows",
        ),
        ("  of the generator alone", _nats(report["generator_log_likelihood"]), ""),
        ("  gain of the tilt", _nats(report["gain"]), _worth(report)),
        ("  of training rows", _nats(report["train_log_likelihood"]), _overfitting(report)),
        ("log α in use", _number(normalizer["value"]), ""),
        *_fresh(normalizer["evidence"]["generator"]),
        ("log α is reliable", "yes" if normalizer["reliable"] else "NO", normalizer["reason"]),
        ("KL gate", "passed" if gate["passed"] else "FAILED", "KL(generator ‖ model) ≥ 0"),
        *(
            (f"rank correlations, {name}", _number(report[f"correlation_{key}"]), comparison)
            for name, key, comparison in (
                ("samples", "samples", "root mean square difference from test rows"),
                ("refined", "refined", f"training rows {_number(report['correlation_train'])}"),
            )
        ),
    ]
    if anomaly is not None:
        counts = f"{anomaly['odd_rows']} odd rows among {anomaly['other_rows']} others"
        rows.append((f"AUROC of {anomaly['column']} = {anomaly['value']}", f"{anomaly['auroc']:.4f}", counts))
        rows.append(("  of the generator alone", f"{anomaly['auroc_generator']:.4f}", "chance ½"))
    for row in rows:
        table.add_row(*row)
    return table


def _worst_columns(report: dict[str, Any]) -> Table:
    columns = sorted(report["columns"], key=lambda column: -column["ks_samples"])[:_SHOWN]
    constant = f", {len(report['constants'])} constant left out" if report["constants"] else ""
    discrete = sum(column["kind"] == "discrete" for column in report["columns"])
    count = f"{len(report['columns'])} columns, {discrete} discrete{constant}"
    table = Table(box=None, pad_edge=False, title=count, title_justify="left", title_style="")
    table.add_column("column, worst first")
    table.add_column("kind")
    for name in ("samples", "refined", "training rows"):
        table.add_column(f"KS {name}", justify="right")
    for column in columns:
        kind = f"discrete, step {column['step']:g}" if column["kind"] == "discrete" else column["kind"]
        distances = (f"{column[f'ks_{key}']:.3f}" for key in ("samples", "refined", "train"))
        table.add_row(column["name"], kind, *distances)
    return table


def _fresh(estimate: dict[str, Any]) -> list[tuple[str, str, str]]:
    (low, high), (least, most) = ([_number(end) for end in estimate[key]] for key in ("ci95", "bound95"))
    cap = f"for any weights up to e^{estimate['cap']:.2f}"
    return [
        ("  by fresh draws", _number(estimate["value"]), f"95 % interval {low} to {high}"),
        ("", "", f"95 % bound {least} to {most}, {cap}"),
        ("  effective sample size / S", _number(estimate["ess_fraction"]), f"S = {estimate['samples']}"),
        ("  largest weight's share", _number(estimate["max_weight_share"], 5), ""),
        ("  Pareto k̂", _number(estimate["pareto_k"], 2), ""),
    ]


def _worth(report: dict[str, Any]) -> str:
    gain, error = report["gain"], report["gain_standard_error"]
    if gain is None or error is None:
        return ""
    low, high = report["log_normalizer"]["interval"]
    together = math.inf if low is None or high is None else math.hypot(error, (high - low) / _WIDTH)
    if abs(gain) < max(2 * together, _SHOWN_GAIN):
        return f"± {error:.4f}: the tilt adds nothing (below 2 standard errors, with that of log α)"
    return f"± {error:.4f}" if gain > 0 else f"± {error:.4f}: the tilt does harm"


def _overfitting(report: dict[str, Any]) -> str:
    train, test = report["train_log_likelihood"], report["test_log_likelihood"]
    if train is None or test is None:
        return ""
    return f"{train - test:+.4f} over test rows"


def _nats(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f} nats"


def _number(value: float | None, digits: int = 4) -> str:
    return "unknown" if value is None else f"{value:.{digits}f}"
