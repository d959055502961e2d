"""Prints the tables of docs/results.md from the reports beside this file: `python docs/results/table.py`."""

import json
from itertools import groupby
from pathlib import Path
from statistics import mean, stdev

COLUMNS = {
    "modes": lambda r: f"{r['modes']}/{r['modes_total']}",
    "% within 3σ": lambda r: f"{r['high_quality_percent']:.2f}",
    "% refined": lambda r: f"{r['high_quality_percent_refined']:.2f}",
    "KL(p* ‖ p_θ)": lambda r: f"{r['kl_data_model']:.4f}",
    "log α − quadrature": lambda r: f"{log_normalizer_error(r):+.4f}",
    "ESS/S": lambda r: f"{r['log_normalizer']['ess_fraction']:.3f}",
    "reliable": lambda r: "yes" if r["log_normalizer"]["reliable"] else "no",
}


def log_normalizer_error(report: dict) -> float:
    return report["log_normalizer"]["value"] - report["log_normalizer"]["quadrature"]


def spread(values: list[float]) -> str:
    return f"{mean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"


def main() -> None:
    reports = [json.loads(path.read_text()) for path in Path(__file__).parent.glob("*.json")]
    reports.sort(key=lambda r: (r["data"] != "ring", r["preset"], r["seed"]))
    for (data, preset), group in groupby(reports, key=lambda r: (r["data"], r["preset"])):
        runs = list(group)
        print(f"\n### {data}, `{preset}`\n")
        print("| seed | " + " | ".join(COLUMNS) + " |")
        print("|---" * (len(COLUMNS) + 1) + "|")
        for run in runs:
            print(f"| {run['seed']} | " + " | ".join(cell(run) for cell in COLUMNS.values()) + " |")
        if len(runs) > 1:
            raw, refined = (
                spread([r[key] for r in runs])
                for key in ("high_quality_percent", "high_quality_percent_refined")
            )
            print(f"\nMean ± sd over {len(runs)} seeds: {raw} % raw, {refined} % refined.")


if __name__ == "__main__":
    main()
