"""Writes docs/gpu.md: the least time of every case of the GPU benchmark, from its work: ``python bench/gpu_floor.py``.

The instructions are those of bench/results/gpu_code.json.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import gpu_code
from gpu_cases import GpuCase, all_cases

PAGE = Path(__file__).parents[1] / "docs" / "gpu.md"
_MEMORY_SHARE, _ISSUE_SHARE = 0.9, 0.7  # of what a GPU can do, that a good kernel reaches
_LAUNCH = 3e-6  # seconds until a kernel runs
_WARP = 32


@dataclass(frozen=True)
class Gpu:
    """What its data sheet says."""

    name: str
    architecture: str
    bytes_per_second: float
    multiprocessors: int
    clock: float  # Hz, at most

    @property
    def flops(self) -> float:
        """Float32, a second: 128 lanes a multiprocessor of sm_90, 64 of sm_80."""
        return self.multiprocessors * (128 if self.architecture == "sm_90" else 64) * 2 * self.clock

    @property
    def issues(self) -> float:
        """Instructions of warps, a second: four schedulers a multiprocessor."""
        return self.multiprocessors * 4 * self.clock


GPUS = [
    Gpu("H100 SXM", "sm_90", 3.35e12, 132, 1.98e9),
    Gpu("A100 SXM 80 GB", "sm_80", 2.039e12, 108, 1.41e9),
]


def loops_of(case: GpuCase) -> list[str]:
    """The loops of gpu_code.LOOPS that the case's time goes to; none where PyTorch computes."""
    operator, _, what = case.operator.partition(" forward")
    with_backward, dtype = bool(what), str(case.dtype).removeprefix("torch.")
    if operator in ("soft_relu", "soft_relu_inverse"):
        return [f"{operator} {dtype}"] + [f"{operator} backward {dtype}"] * with_backward
    channels = numbers_of(case.shape)[1]
    if operator == "circulant_logdet":
        least = next((n for n in (8, 16, 32, 64, 128, 192) if channels <= n), 0)
        return [f"{operator} {least} channels" + " with gradient" * with_backward] if channels <= 167 else []
    if operator == "circular_conv_inverse":
        return [operator]
    if operator == "perpendicular_norm" and channels <= 4 and not with_backward:
        return [f"{operator} {channels} channels"]
    return []


def numbers_of(shape: str) -> list[int]:
    """Of "8x32x32x3x3 on 32x32"."""
    return [int(n) for n in shape.replace(" on ", "x").replace(" to ", "x").split("x")]


def instructions(case: GpuCase, architecture: str) -> float | None:
    """Of all warps, in their loops; None where they are not known."""
    counts = {(row["loop"], row["architecture"]): row for row in gpu_code.read()["rows"]}
    rows = [counts[loop, architecture] for loop in loops_of(case)]
    if not rows:
        return None
    (row, *_), numbers = rows, numbers_of(case.shape)
    if "elements" in row:  # branches are for what few elements need
        return sum(math.prod(numbers) / _WARP / row["elements"] * row["always"] for row in rows)
    if (
        case.operator.startswith("circulant_logdet") and numbers[1] <= 32
    ):  # a pass a step; lanes = columns, rounded up
        batch, channels, *_, height, width = numbers
        lanes = max(8, 2 ** math.ceil(math.log2(channels)))
        # Without a gradient, a step leaves out the columns that are done: half of them, all in all.
        each = row["instructions"] if "gradient" in row["loop"] else (row["instructions"] + row["always"]) / 2
        return batch * (height * width // 2 + 2) * channels * lanes / _WARP * each
    # Of perpendicular_norm's products, those with the transposed weight.
    share = 0.5 if case.operator.startswith("perpendicular_norm") else 1
    return share * case.least_flops / 2 / _WARP / row["multiply_adds"] * row["instructions"]


def row_of(case: GpuCase) -> list[str]:
    cells = [case.operator, case.shape, str(case.dtype).removeprefix("torch.")]
    cells += [f"{case.least_bytes / 1e6:.3g}", f"{case.least_flops / 1e9:.3g}"]
    for gpu in GPUS:
        times = {
            "memory": case.least_bytes / gpu.bytes_per_second,
            "arithmetic": case.least_flops / gpu.flops,
        }
        work = instructions(case, gpu.architecture)
        issue = 0.0 if work is None else work / gpu.issues
        floor = max(times.values())
        expected = (
            max(times["memory"] / _MEMORY_SHARE, max(issue, times["arithmetic"]) / _ISSUE_SHARE) + _LAUNCH
        )
        known = work is not None
        cells += [
            f"{work / 1e6:.3g}" if known else "",
            f"{floor * 1e6:.3g}",
            max(times, key=times.__getitem__) if issue <= floor else "issue",
            f"{floor / expected:.0%}" if known else "",
        ]
    return cells


def table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def code_rows() -> list[list[str]]:
    rows = []
    for row in gpu_code.read()["rows"]:
        done = row.get("elements") or row["multiply_adds"]
        each = f"{row['always'] / done:.3g} an element"
        if "multiply_adds" in row:
            each = f"{row['multiply_adds'] / row['instructions']:.0%} multiply-adds"
            if row["shared_bytes"]:
                each += f", {4 * row['shared_bytes'] / row['multiply_adds']:.3g} B of shared memory for four"
        rows.append(
            [
                row["loop"],
                row["architecture"],
                str(row["registers"]),
                str(row["always"]),
                str(row["instructions"]),
                each,
            ]
        )
    return rows


_TEXT = """# What the CUDA kernels take: estimates

**Nothing on this page was measured on a GPU.** Bytes and operations are counted, instructions are read from the
machine code (nvcc {nvcc}, `python bench/gpu_code.py`), and times follow from the data sheets of NVIDIA's H100 SXM (3.35
TB/s, 132 multiprocessors, 1.98 GHz) and A100 SXM 80 GB (2.04 TB/s, 108, 1.41 GHz). `bench/gpu_check.sh` measures, on a
machine that has one. Written by `python bench/gpu_floor.py`.

## Floors

`MB` and `GFLOP` are the least that must be moved and computed. `least µs` is the longer of the times that memory and
float32 arithmetic take for that at their peaks. The loops' instructions, of warps, take as long as the schedulers issue
four a clock and multiprocessor; `issue` says that this is the longest of the three. `share expected` is the least time
over the expected one: {memory:.0%} of the memory's rate, {issue:.0%} of the issue slots and of the arithmetic,
{launch:.0f} µs for a launch. Empty where PyTorch's kernels do the work, or where loops depend on the parameters. Work
that is done besides (evaluating symbols, adding up) is not in it.

{floors}

## Loops

The innermost loop that a kernel's time goes to: what every pass takes (`always`), and all with the branches that some
take. A complex multiply-add is four real ones.

{loops}
"""


def page() -> str:
    head = ["operator", "shape", "dtype", "MB", "GFLOP"]
    for gpu in GPUS:
        head += [f"{gpu.name}: 10⁶ instructions", "least µs", "bound by", "share expected"]
    return _TEXT.format(
        nvcc=gpu_code.read()["environment"]["nvcc"],
        memory=_MEMORY_SHARE,
        issue=_ISSUE_SHARE,
        launch=_LAUNCH * 1e6,
        floors=table(head, [row_of(case) for case in all_cases()]),
        loops=table(["loop", "architecture", "registers", "always", "instructions", "each"], code_rows()),
    )


if __name__ == "__main__":
    PAGE.write_text(page())
