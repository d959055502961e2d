"""The report on images as a table for people."""

from typing import Any

from rich.table import Table

from led_fast.density import Verdict
from led_fast.density.json_values import finite


def image_report_table(report: dict[str, Any]) -> Table:
    """One row a quantity, with what it should be beside it; rows that the report cannot have are left out."""
    table = Table(box=None, pad_edge=False)
    table.add_column("quantity")
    table.add_column("value", justify="right")
    table.add_column("to compare", style="dim")
    rows = _quality(report)
    if "log_normalizer" in report:
        rows = [*_likelihood(report), *rows, *_belief(report)]
    for name, value, form, comparison in rows:
        table.add_row(name, "undefined" if value is None else form.format(value), comparison)
    return table


_Row = tuple[str, Any, str, str]
_OTHER_SCORES = ("typicality", "tilt", "ratio")  # see ImageValues.scores


def _likelihood(report: dict[str, Any]) -> list[_Row]:
    pixel, error = report["bits_per_pixel"], report["bits_per_dim_standard_error"]
    comparisons = [f"uniform density {report['bits_per_dim_uniform']:.2f}"]
    if error is not None:
        comparisons.append(f"standard error {error:.3f}")
    if not Verdict.from_json(report["log_normalizer"]).reliable:
        comparisons.append("UNRELIABLE, as log α is")
    bits, bits_train = report["bits_per_dim"], report["bits_per_dim_train"]
    surrogate = "" if report["generator_density"] == "exact" else "a surrogate: coordinates are dropped"
    rows: list[_Row] = [("bits per dimension, test", bits, "{:.3f}", "; ".join(comparisons))]
    if (by_generator := report["bits_per_dim_generator"]) is not None:
        known = "a bound: no more than this" if surrogate else "exact: its density needs no log α"
        rows.append(("  under the generator", by_generator, "{:.3f}", known))
        if (gain := report.get("gain")) is not None:
            known_gain = ["a bound: no more than this"] if surrogate else []
            if (error := report["gain_standard_error"]) is not None:
                known_gain.append(f"standard error {error:.5f}, with that of log α")
            rows.append(("  gained by the tilt", gain, "{:.5f}", "; ".join(known_gain)))
    if (last_map := report.get("last_map")) is not None:
        rows.append(("  last map", last_map, "{}", "as the training data have it"))
    return [
        *rows,
        ("bits per dimension, training", bits_train, "{:.3f}", "the same, unless overfitted"),
        ("paper's b/p, test", pixel["test"], "{:.3f}", f"uniform density {pixel['uniform']:.2f}"),
        ("paper's b/p, samples, generator", pixel["samples_generator"], "{:.3f}", surrogate),
        ("paper's b/p, samples, critic", pixel["samples_critic"], "{:.3f}", "the generator's or more"),
    ]


def _quality(report: dict[str, Any]) -> list[_Row]:
    rows: list[_Row] = []
    if quality := report["quality"]:
        real = f"real images {quality['distance_real']:.2f}; {quality['images']} of each"
        rows.append(("Fréchet distance", quality["distance"], "{:.2f}", real))
        accuracy = "" if quality["accuracy"] is None else f"accuracy {quality['accuracy']:.2%}"
        rows.append(("  by features of", quality["features"], "{}", accuracy))
        if refined := report.get("quality_refined"):
            rows += _refined(refined)
    for name, outlier in report["outliers"].items():
        below = outlier["auroc"] is not None and outlier["auroc"] < 0.5
        meaning = "BELOW CHANCE: the outliers are denser" if below else "chance ½"
        rows.append((f"AUROC, test against {name}", outlier["auroc"], "{:.4f}", meaning))
        others = {score: outlier[f"auroc_{score}"] for score in _OTHER_SCORES if f"auroc_{score}" in outlier}
        shown = ", ".join("undefined" if value is None else f"{value:.4f}" for value in others.values())
        rows.append(("  by " + ", ".join(others), shown, "{}", ""))
    return rows


def _refined(refined: dict[str, Any]) -> list[_Row]:
    chosen = f"of draws, {refined['ess_fraction']:.0%} of them effective"
    rows: list[_Row] = [("  of resampled images", refined["distance_resampled"], "{:.2f}", chosen)]
    if refined["transitions"]:
        moved = f"{refined['transitions']} Langevin transitions, {refined['acceptance']:.0%} accepted"
        rows.append(("  of refined images", refined["distance"], "{:.2f}", moved))
    return rows


def _belief(report: dict[str, Any]) -> list[_Row]:
    verdict, gate = Verdict.from_json(report["log_normalizer"]), report["kl_gate"]
    estimates = (
        ("generator", "the generator"),
        ("base", "the density that is tilted"),
        ("pixels", "independent pixels"),
        ("annealed", "annealing"),
    )
    rows = [
        (f"log α by {title}", estimate["value"], "{:.2f}", _diagnostics(estimate))
        for key, title in estimates
        if (estimate := verdict.evidence.get(key)) is not None
    ]
    if (error := report.get("log_q_error")) is not None:
        rows.append(("log q of samples less that drawn", error, "{:+.3f} nats", "0; the median"))
    if (rounded := report.get("samples_rounded")) is not None:
        rows.append(
            (
                "  off by more than a nat",
                rounded,
                "{:.1%}",
                "float32 rounds images far out, or close to white",
            )
        )
    return [
        *rows,
        ("log α in use", finite(verdict.value), "{:.2f}", ""),
        ("log α is reliable", "yes" if verdict.reliable else "NO", "{}", verdict.reason),
        ("KL(generator ‖ model)", report["kl_generator_model"], "{:.2f} nats", "0"),
        ("KL gate", "passed" if gate["passed"] else "FAILED", "{}", "KL(generator ‖ model) ≥ 0"),
    ]


def _diagnostics(estimate: dict[str, Any]) -> str:
    if estimate["value"] is None:
        return estimate["reason"]
    low, high = (
        infinite if end is None else f"{end:.2f}"
        for end, infinite in zip(estimate["ci95"], ("-∞", "∞"), strict=True)
    )
    if not estimate["reliable"]:
        return f"{low} to {high}; UNRELIABLE: {estimate['reason']}"
    if bound := estimate.get("bound95"):
        return f"{low} to {high}; {bound[0]:.2f} to {bound[1]:.2f} for any weights below the cap: reliable"
    k = "∞" if estimate["pareto_k"] is None else f"{estimate['pareto_k']:.2f}"
    effective = estimate["ess_fraction"] * estimate["samples"]
    return (
        f"{low} to {high}; {effective:.0f} of {estimate['samples']} weights effective, largest "
        f"{estimate['max_weight_share']:.1%}, k̂ {k}: reliable"
    )
