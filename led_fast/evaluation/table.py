"""A report as a table for people."""

from typing import Any

from rich.table import Table

from led_fast.density import Verdict

_SAMPLED = {
    "broad": "by a broad proposal",
    "annealed_forward": "by annealing, from below",
    "annealed_reverse": "by annealing, from above",
}


def report_table(report: dict[str, Any]) -> Table:
    """One row a quantity, with what it should be beside it; rows that the data cannot have are left out."""
    table = Table(box=None, pad_edge=False)
    table.add_column("quantity")
    table.add_column("value", justify="right")
    table.add_column("to compare", style="dim")
    verdict, gate = Verdict.from_json(report["log_normalizer"]), report["kl_gate"]
    normalizer = verdict.evidence["generator"]
    oracle = report["high_quality_percent_oracle"]
    rows = [
        ("modes", report["modes"], "{}", f"of {report['modes_total']}"),
        ("high quality, raw", report["high_quality_percent"], "{:.2f} %", f"true samples {_two(oracle)} %"),
        ("high quality, refined", report["high_quality_percent_refined"], "{:.2f} %", "the same"),
        ("beyond 3σ of every mode", report["bridge_percent"], "{:.2f} %", "true samples 1.11 %"),
        ("KL(data ‖ model)", report["kl_data_model"], "{:.4f} nats", "0"),
        ("KL(generator ‖ model)", report["kl_generator_model"], "{:.4f} nats", "0"),
        ("held-out NLL", report["held_out_nll"], "{:.4f} nats", _entropy(report["entropy"])),
        ("log α", normalizer["value"], "{:.4f}", _interval(normalizer)),
        *_second_estimates(verdict.evidence),
        ("effective sample size / S", normalizer["ess_fraction"], "{:.3f}", f"S = {normalizer['samples']}"),
        (
            "largest weight's share",
            normalizer["max_weight_share"],
            "{:.5f}",
            f"1/S = {1 / normalizer['samples']:.5f}",
        ),
        ("Pareto k̂", normalizer["pareto_k"], "{:.2f}", "unreliable from 0.7 less its error"),
        ("log α is reliable", "yes" if verdict.reliable else "NO", "{}", verdict.reason),
        ("KL gate", "passed" if gate["passed"] else "FAILED", "{}", "KL(generator ‖ model) ≥ 0"),
    ]
    for name, value, form, comparison in rows:
        if value is not None:
            table.add_row(name, form.format(value), comparison)
    return table


def _second_estimates(evidence: dict[str, dict[str, Any]]) -> list[tuple[str, Any, str, str]]:
    quadrature = evidence["quadrature"]
    rows = [("  by quadrature", quadrature["value"], "{:.4f}", f"error {quadrature['error']:.4f}")]
    for key, name in _SAMPLED.items():
        if estimate := evidence.get(key):
            spread = "" if estimate["reliable"] else "; not reliable by itself"
            rows.append((f"  {name}", estimate["value"], "{:.4f}", _interval(estimate) + spread))
    return rows


def _interval(estimate: dict[str, Any]) -> str:
    low, high = ("unknown" if end is None else f"{end:.4f}" for end in estimate["ci95"])
    return f"95 % interval {low} to {high}"


def _two(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _entropy(value: float | None) -> str:
    return "" if value is None else f"entropy of the data {value:.4f}"
