"""Writes docs/speed.md and README's table of speeds from the files under bench/results: ``python bench/page.py``."""

import json
import re
import statistics
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
README, PAGE = ROOT / "README.md", ROOT / "docs" / "speed.md"
_MARKED = re.compile(r"(?<=<!-- speed -->\n).*?(?=<!-- end -->)", re.DOTALL)

Case = dict[str, object]


@dataclass(frozen=True)
class Section:
    """A table of one file: a row for each case, a column for each pass and contender."""

    title: str
    file: str
    text: str
    where: Callable[[Case], bool] = lambda case: True
    figures: bool = False


def in_float32(case: Case, threads: int = 1) -> bool:
    return case["threads"] == threads and case.get("dtype", "float32") == "float32"


SECTIONS = [
    Section("soft_relu", "soft_relu", "`clone` copies the input.", in_float32),
    Section(
        "soft_relu in bfloat16", "soft_relu", "", lambda c: c["threads"] == 1 and c["dtype"] == "bfloat16"
    ),
    Section(
        "soft_relu with parameters per feature",
        "soft_relu_per_feature",
        "`scalar` is the operator with numbers for parameters, which has no gradients to them.",
        in_float32,
    ),
    Section(
        "soft_relu_inverse",
        "soft_relu_inverse",
        "`eager` takes Newton's steps in plain PyTorch, a fixed number; `host loop` is how commit c092c34 inverted; "
        "`soft_relu` is the way there.",
        in_float32,
    ),
    Section(
        "staircase and staircase_inverse",
        "staircase",
        "`Newton in Python` is how commit c092c34 inverted.",
        in_float32,
    ),
    Section(
        "mixture_log_prob",
        "mixture",
        "`with score` is mixture_log_prob_and_score. `products` multiplies the squares out, in float64, for products "
        "of matrices, and has its score by autograd.",
    ),
    Section(
        "fourier_features",
        "fourier_features",
        "Points, coordinates and directions; `eager` is a product, a sine, a cosine and a concatenation, `penalty` the "
        "gradient of a squared gradient.",
    ),
    Section(
        "flows.Linear",
        "linear",
        "`separate` factorises the weight for each of log-determinant, score and gradient, as commit c092c34 did.",
    ),
    Section(
        "circulant_logdet",
        "circulant_logdet",
        "The contenders factorise half of the symbols or all, in plain PyTorch; `sgemm` is a matrix product of as "
        "many multiplications.",
    ),
    Section(
        "circular_conv_inverse",
        "circular_conv_inverse",
        "`separate calls` is how commit c092c34 inverted; `convolution` is the way there, with its log-determinant.",
    ),
    Section("perpendicular_norm", "perpendicular", "", in_float32),
    Section("Two threads: soft_relu", "soft_relu", "", lambda c: in_float32(c, threads=2)),
    Section("Two threads over one: elementwise operators", "elementwise_threads", ""),
    Section("Two threads over one: circulant_logdet", "circulant_logdet_threads", ""),
    Section("Two threads over one: circular_conv_inverse", "circular_conv_inverse_threads", ""),
    Section("Memory: elementwise operators", "elementwise_memory", "At the peak of a call.", figures=True),
    Section("Memory: circulant_logdet", "circulant_logdet_memory", "", figures=True),
    Section("Memory: circular_conv_inverse", "circular_conv_inverse_memory", "", figures=True),
]

ELEMENTS, PLAIN = "64x96x32x32", "plain PyTorch"
# README's rows: name, file, contender, what it is called, which cases.
SUMMARY: list[tuple[str, str, str, str, Callable[[Case], bool]]] = [
    (
        "`soft_relu`, 64×96×32×32",
        "soft_relu",
        "eager",
        PLAIN,
        lambda c: in_float32(c) and c["shape"] == ELEMENTS,
    ),
    ("", "soft_relu", "torch.compile", "torch.compile", lambda c: in_float32(c) and c["shape"] == ELEMENTS),
    ("`soft_relu`, 8×16", "soft_relu", "eager", PLAIN, lambda c: in_float32(c) and c["shape"] == "8x16"),
    (
        "the same, parameters per feature, 8×16 to 64×96×32×32",
        "soft_relu_per_feature",
        "eager",
        PLAIN,
        lambda c: in_float32(c) and c["shape"] != "1x1",
    ),
    (
        "`soft_relu_inverse`, 8×16 to 64×96×32×32",
        "soft_relu_inverse",
        "eager",
        f"Newton in {PLAIN}",
        lambda c: in_float32(c) and c["shape"] != "1x1",
    ),
    ("`staircase`, 4 and 8 steps", "staircase", "eager", PLAIN, in_float32),
    (
        "`staircase_inverse`, 4 and 8 steps",
        "staircase",
        "Newton in Python",
        "Newton and a table in PyTorch",
        in_float32,
    ),
    (
        "`mixture_log_prob`, 1…8192 points, 1…640 components",
        "mixture",
        "eager",
        PLAIN,
        lambda c: c["pass"] != "with score",
    ),
    (
        "`fourier_features`, 1…65536 points, 64 and 128 directions",
        "fourier_features",
        "eager",
        PLAIN,
        lambda c: True,
    ),
    (
        "`circulant_logdet`, C = 8…64, grids 16×16…32×32",
        "circulant_logdet",
        "half spectrum",
        "half-spectrum PyTorch",
        lambda c: 8 <= c["C"] <= 64 and c["grid"] in ("16x16", "16x31", "17x17", "32x32"),
    ),
    (
        "`circulant_logdet`, C = 96…256, the same grids",
        "circulant_logdet",
        "half spectrum",
        "half-spectrum PyTorch",
        lambda c: c["C"] > 64 and c["grid"] in ("16x16", "16x31", "17x17", "32x32"),
    ),
    ("`circular_conv_inverse`, C = 3…256", "circular_conv_inverse", "plain PyTorch", PLAIN, lambda c: True),
    (
        "`perpendicular_norm`, DCGAN layers, batch 1…128",
        "perpendicular",
        "composition",
        "the composition in PyTorch",
        in_float32,
    ),
]


def read(file: str) -> dict:
    return json.loads((RESULTS / f"{file}_cpu.json").read_text())


def pass_of(case: Case) -> str:
    return str(case.get("pass", case.get("what", case.get("call", ""))))


def label_of(case: Case) -> str:
    hidden = ("pass", "what", "call", "threads", "dtype")
    named = {
        "features": "D = {}",
        "C": "C = {}",
        "steps": "{} steps",
        "components": "{} components",
        "samples": "{} samples",
        "batch": "batch {}",
        "image": "image {}",
    }
    return ", ".join(
        named.get(k, "{}").format(v).replace("x", "×") for k, v in case.items() if k not in hidden
    )


def paragraph(text: str) -> str:
    return textwrap.fill(text.strip(), 120, break_long_words=False, break_on_hyphens=False)


def sources(*files: str) -> str:
    commits = " and ".join(dict.fromkeys(read(file)["environment"]["commit"] for file in files))
    return f"From {', '.join(f'[{f}_cpu.json](../bench/results/{f}_cpu.json)' for f in files)}, commit {commits}."


def row_of(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def ratio(row: dict, contender: str) -> float:
    return row["seconds"][contender] / row["seconds"]["led_fast"]


def section(s: Section) -> list[str]:
    rows = [row for row in read(s.file)["rows"] if s.where(row["case"])]
    passes = list(dict.fromkeys(pass_of(row["case"]) for row in rows))
    by_case: dict[str, dict[str, dict]] = {}
    for row in rows:
        by_case.setdefault(label_of(row["case"]), {})[pass_of(row["case"])] = row
    columns: list[tuple[str, str, Callable[[dict], str]]] = []
    for name in passes:
        of_pass = [row for row in rows if pass_of(row["case"]) == name]
        if s.figures:
            for figure in dict.fromkeys(f for row in of_pass for f in row["figures"]):
                columns.append((name, figure, lambda row, f=figure: f"{row['figures'][f]:.1f}"))
            continue
        columns.append((name, "µs", lambda row: f"{row['seconds']['led_fast'] * 1e6:.0f}"))
        for contender in dict.fromkeys(c for row in of_pass for c in row["seconds"] if c != "led_fast"):
            columns.append(
                (
                    name,
                    contender,
                    lambda row, c=contender: f"{ratio(row, c):.2f}" if c in row["seconds"] else "",
                )
            )
    lines = [f"## {s.title}", "", paragraph(f"{s.text} {sources(s.file)}"), ""]
    lines += [row_of("", *(f"{name}: {column}" for name, column, _ in columns))]
    lines += ["|---" * (len(columns) + 1) + "|"]
    for label, found in by_case.items():
        lines.append(
            row_of(label, *(cell(found[name]) if name in found else "" for name, _, cell in columns))
        )
    return [*lines, ""]


def training() -> list[str]:
    steps, memory = read("training"), read("training_memory")
    lines = [
        "## Training",
        "",
        paragraph(
            "Steps of the presets as they are, with fast operators: how many times faster than with `--ops reference`, "
            "than with `--compile on`, and than those of commit c092c34. Its `paper` is another, larger network, now "
            "`paper_printed`: that ratio is no operator's. Presets of images are timed with the networks that they had "
            "at that commit. A step is a critic step, its generator steps and its share of the penalty. "
            f"{sources('training', 'training_memory')}"
        ),
        "",
        row_of("data, preset, stage", "threads", "a step, ms", "references", "compiled", "c092c34"),
        "|---" * 6 + "|",
    ]
    for row in steps["rows"]:
        ratios = [f"{ratio(row, c):.2f}" for c in ("reference", "compiled", "beside")]
        lines.append(
            row_of(
                step_name(row["case"]),
                str(row["case"]["threads"]),
                f"{row['figures']['ms a step']:.3g}",
                *ratios,
            )
        )
    lines += [
        "",
        "What a process holds at its peak beyond networks, optimisers and libraries, S = 256, MiB:",
        "",
    ]
    names = list(memory["rows"][0]["figures"])
    lines += [
        row_of("preset", *(name.removesuffix(" MiB") for name in names)),
        "|---" * (len(names) + 1) + "|",
    ]
    for row in memory["rows"]:
        lines.append(row_of(f"`{row['case']['preset']}`", *(f"{row['figures'][name]:.0f}" for name in names)))
    return [*lines, "", *profiles()]


def step_name(case: Case) -> str:
    return f"{case['data']}, `{case['preset']}`, {case['stage']}"


def profiles() -> list[str]:
    """Where the time of a step goes, a table for each."""
    parts = {"operations": "{:.0f}", "MB": "{:.1f}", "matrix products, ms": "{:.2f}"}
    lines = [
        "## Where a step's time goes",
        "",
        paragraph(
            "Each part without those within it. Operations are those that PyTorch dispatches, ours among them, also in "
            "backward; MB is what they read and write. Both are of PyTorch's own convolutions and of generators layer "
            "by layer: what we have instead gives way where operations are counted. The last column is the time that a "
            "part's matrix products and convolutions, as PyTorch counts them, would take at the rate of a large matrix "
            "product. One thread. "
            f"{sources('training_profile')}"
        ),
        "",
    ]
    steps: dict[str, list[dict]] = {}
    for row in read("training_profile")["rows"]:
        steps.setdefault(step_name(row["case"]), []).append(row)
    for name, rows in steps.items():
        lines += [row_of(name, "ms", *parts), "|---" * (2 + len(parts)) + "|"]
        cells = [(row["case"]["part"], row["seconds"]["led_fast"] * 1e3, row["figures"]) for row in rows]
        totals = {figure: sum(figures[figure] for *_, figures in cells) for figure in parts}
        cells.append(("**all**", sum(ms for _, ms, _ in cells), totals))
        for part, ms, figures in cells:
            lines.append(row_of(part, f"{ms:.2f}", *(form.format(figures[f]) for f, form in parts.items())))
        lines.append("")
    return lines


def page() -> str:
    environment = read("soft_relu")["environment"]
    lines = [
        "# Speed",
        "",
        paragraph(
            "Written by `python bench/page.py` from the results of `pytest bench/ --benchmark`. One core of an "
            f"{environment['cpu']}, float32 where nothing else is said, torch {environment['torch']}, an else idle "
            "machine; contenders in turns in one process, the least time of each. `µs` is ours, every other column how "
            "many times faster we are than that contender: below 1 we lose."
        ),
        "",
        *(line for s in SECTIONS for line in section(s)),
        *training(),
    ]
    return "\n".join(lines).rstrip() + "\n"


def spread(ratios: list[float]) -> str:
    if not ratios:
        return ""
    if len(ratios) == 1:
        return f"{ratios[0]:.1f}"
    return f"{min(ratios):.1f}–{max(ratios):.1f}, median {statistics.median(ratios):.1f}"


def summary() -> str:
    lines = ["| | forward | forward + backward | than |", "|---|---|---|---|"]
    for name, file, contender, called, where in SUMMARY:
        rows = [row for row in read(file)["rows"] if where(row["case"]) and contender in row["seconds"]]
        found = [
            [ratio(row, contender) for row in rows if pass_of(row["case"]).endswith("backward") == backward]
            for backward in (False, True)
        ]
        lines.append(row_of(name, *map(spread, found), called))
    return "\n".join(lines) + "\n"


def readme() -> str:
    return _MARKED.sub(lambda _: summary(), README.read_text())


if __name__ == "__main__":
    PAGE.write_text(page())
    README.write_text(readme())
