"""Draws the pictures of the kernels' pages and fills in what was measured: `python docs/kernels/page.py`.

All from the files under bench/results. A page is prose with one block between `<!-- measured -->` and `<!-- end -->`,
which this script writes.
"""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

FOLDER = Path(__file__).parent
RESULTS = FOLDER.parents[1] / "bench" / "results"
MARKED = re.compile(r"(?<=<!-- measured -->\n).*?(?=<!-- end -->)", re.DOTALL)

Case = dict[str, Any]


@dataclass(frozen=True)
class Kernel:
    """What is shown of one file of results.

    Attributes:
        file: of bench/results, without `_cpu.json`.
        passes: the two panels, by the case's `pass` or `what`.
        size: a case's place on the horizontal axis, and in the table; None leaves it out.
        axis: what that is.
        plain: the contender in plain PyTorch.
        floor: the contender that does the least that must be done, or another thing whose share the results hold; None
            where there is none.
    """

    file: str
    passes: tuple[str, str]
    size: Callable[[Case], float | None]
    axis: str
    plain: str
    floor: str | None = None


def _elements(case: Case) -> float | None:
    one_thread = case.get("threads", 1) == 1 and case.get("dtype", "float32") == "float32"
    return math.prod(map(int, case["shape"].split("x"))) if one_thread else None


def _staircase(case: Case) -> float | None:
    return _elements(case) if case["steps"] == 4 else None


def _channels(case: Case) -> float | None:
    return case["C"] if case["grid"] == "16x16" and case.get("batch", 1) == 1 else None


def _solved_channels(case: Case) -> float | None:
    return case["C"] if case["grid"] == "16x16" else None


def _pairs(case: Case) -> float | None:
    points, dimension = map(int, case["shape"].split("x"))
    return points * case["components"] if dimension == 2 else None


def _features(case: Case) -> float | None:
    points, _, directions = map(int, case["shape"].split("x"))
    return points * directions


def _batch_of_few_channels(case: Case) -> float | None:
    return case["batch"] if case["layer"] == "3->64@32" else None


BOTH = ("forward", "forward+backward")
KERNELS = {
    "soft_relu": Kernel("soft_relu", BOTH, _elements, "elements", "eager", "clone"),
    "soft_relu_inverse": Kernel("soft_relu_inverse", BOTH, _elements, "elements", "eager", "soft_relu"),
    "staircase": Kernel("staircase", BOTH, _staircase, "elements, of 4 steps", "eager"),
    "staircase_inverse": Kernel(
        "staircase", ("inverse", "inverse+backward"), _staircase, "elements, of 4 steps", "Newton in Python"
    ),
    "circulant_logdet": Kernel(
        "circulant_logdet", BOTH, _channels, "channels C, grid 16×16", "half spectrum", "sgemm"
    ),
    "circular_conv_inverse": Kernel(
        "circular_conv_inverse",
        BOTH,
        _solved_channels,
        "channels C, grid 16×16",
        "plain PyTorch",
        "convolution",
    ),
    "mixture_log_prob": Kernel("mixture", BOTH, _pairs, "points × components, in the plane", "eager"),
    "fourier_features": Kernel("fourier_features", BOTH, _features, "points × directions", "eager"),
    "perpendicular_norm": Kernel(
        "perpendicular", BOTH, _batch_of_few_channels, "batch, 3→64 channels, 32×32 cells", "composition"
    ),
}


def _rows(kernel: Kernel) -> dict[str, list[tuple[float, dict[str, Any]]]]:
    """By pass, the rows in the order of their sizes; of equal sizes the first."""
    found: dict[str, dict[float, dict[str, Any]]] = {name: {} for name in kernel.passes}
    for row in json.loads((RESULTS / f"{kernel.file}_cpu.json").read_text())["rows"]:
        case = row["case"]
        name, size = case.get("pass", case.get("what")), kernel.size(case)
        if name in found and size is not None:
            found[name].setdefault(size, row)
    return {name: sorted(rows.items()) for name, rows in found.items()}


def draw(name: str, path: Path) -> None:
    """Writes a kernel's picture: time by size for every contender, in both passes."""
    kernel = KERNELS[name]
    figure, panels = plt.subplots(1, 2, figsize=(8.4, 3.1), layout="constrained", sharey=True)
    for panel, (title, rows) in zip(panels, _rows(kernel).items(), strict=True):
        names = {
            c
            for _, row in rows
            for c in row["seconds"]
            if f"share of {c}" not in row["figures"] or c == "clone"
        }
        contenders = sorted(names, key=lambda c: (c != "led_fast", c))
        for contender in contenders:
            points = [(z, 1e6 * row["seconds"][contender]) for z, row in rows if contender in row["seconds"]]
            style = {"linewidth": 2.2, "color": "#3f51b5"} if contender == "led_fast" else {"linewidth": 1.0}
            label = f"{contender} (floor)" if contender == kernel.floor else contender
            panel.loglog(*zip(*points, strict=True), "o-", markersize=3, label=label, **style)
        panel.set(title=title, xlabel=kernel.axis)
        panel.grid(alpha=0.3)
        panel.legend(fontsize=7)
    panels[0].set_ylabel("µs a call, one thread")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def measured(name: str) -> str:
    """A kernel's table: time, times faster than plain PyTorch, and the share of the floor."""
    kernel = KERNELS[name]
    head = [kernel.axis, *(f"{p}: {what}" for p in kernel.passes for what in _columns(kernel))]
    lines = [
        f"![Time by size]({name}.png)",
        "",
        f"| {' | '.join(head)} |",
        "|" + "---|" * len(head),
    ]
    first, second = (dict(rows) for rows in _rows(kernel).values())
    for size in sorted(first.keys() & second.keys()):
        cells = [text for row in (first[size], second[size]) for text in _cells(kernel, row)]
        lines.append(f"| {size:,} | {' | '.join(cells)} |")
    source = f"../../bench/results/{kernel.file}_cpu.json"
    lines += ["", f"From [{kernel.file}_cpu.json]({source}); [Speed](../speed.md) has every row."]
    return "\n".join(lines) + "\n"


def _columns(kernel: Kernel) -> list[str]:
    return [
        "µs",
        f"times faster than {kernel.plain}",
        *([f"share of {kernel.floor}"] if kernel.floor else []),
    ]


def _cells(kernel: Kernel, row: dict[str, Any]) -> list[str]:
    seconds = row["seconds"]
    ours = seconds["led_fast"]
    texts = [f"{1e6 * ours:,.0f}" if ours >= 1e-5 else f"{1e6 * ours:.1f}"]
    texts.append(f"{seconds[kernel.plain] / ours:.1f}" if kernel.plain in seconds else "")
    if kernel.floor:
        known = row["figures"].get(f"share of {kernel.floor}")
        if known is None and kernel.floor in seconds:
            known = seconds[kernel.floor] / ours
        texts.append("" if known is None else f"{known:.0%}")
    return texts


def filled(name: str) -> str:
    """A kernel's page with its block as the results have it."""
    return MARKED.sub(lambda _: measured(name), (FOLDER / f"{name}.md").read_text())


if __name__ == "__main__":
    for name in KERNELS:
        draw(name, FOLDER / f"{name}.png")
        (FOLDER / f"{name}.md").write_text(filled(name))
