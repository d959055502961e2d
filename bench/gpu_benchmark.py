"""Times every operator on the GPU beside plain PyTorch, and prints its share of what the GPU can do.

``python bench/gpu_benchmark.py OUT.json``. Measured first: the bandwidth of a device copy and the rate of
a float32 matrix product (no TF32). A share is the time that the least memory traffic or arithmetic would take
at those rates, over ours.

OUT.json is valid at any moment: each row is written as it comes, torch.compile's ratios, which take longest, are added
last, and `complete` is true once all is there. Exit code 1 where a row has an `error`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from environment import environment, output
from gpu_cases import COMPILED, DEVICE, GpuCase, all_cases
from torch.utils.benchmark import Timer

_MIN_RUN_TIME_S = 0.15
Row = dict[str, Any]
Clock = Callable[..., float]  # seconds of a call with its inputs


def seconds(call: Callable[..., object], *inputs: object) -> float:
    """Median time of one call, the GPU's work and the launch included."""
    call(*inputs)
    call(*inputs)  # torch.compile is done, allocations are cached
    timer = Timer("call(*inputs)", globals={"call": call, "inputs": inputs})  # synchronises the GPU
    return timer.blocked_autorange(min_run_time=_MIN_RUN_TIME_S).median


def copy_bandwidth() -> float:
    """Bytes read and written per second by a device copy of 1 GiB."""
    source = torch.empty(2**30, dtype=torch.uint8, device=DEVICE).zero_()
    return 2 * source.numel() / seconds(torch.empty_like(source).copy_, source)


def matrix_rate() -> float:
    """Flops per second of a float32 matrix product."""
    a = torch.randn(8192, 8192, device=DEVICE)
    return 2 * a.shape[0] ** 3 / seconds(torch.mm, a, a)


class Results:
    """A file of results, rewritten in one piece whenever something is added."""

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        self.path = path
        self.content: dict[str, Any] = {"complete": False, **about, "rows": []}
        self.save()

    @property
    def rows(self) -> list[Row]:
        return self.content["rows"]

    def save(self) -> None:
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self.content, indent=2) + "\n")
        part.replace(self.path)


def measure(case: GpuCase, bandwidth: float, flops: float, clock: Clock) -> Row:
    """One row, without torch.compile's ratio."""
    row: Row = {
        "operator": case.operator,
        "shape": case.shape,
        "dtype": str(case.dtype).removeprefix("torch."),
    }
    try:
        inputs = case.inputs()
        ours = clock(case.ours, *inputs)
        plain = {name: call for name, call in case.baselines.items() if name != COMPILED}
        ratios = {name: clock(call, *inputs) / ours for name, call in plain.items()}
    except Exception as error:  # the other rows are worth having
        return row | {"error": f"{type(error).__name__}: {error}"}
    least = max(case.least_bytes / bandwidth, case.least_flops / flops)
    return row | {
        "microseconds": ours * 1e6,
        "share_of_least_time": least / ours,
        "bound_by": "memory" if case.least_bytes / bandwidth >= case.least_flops / flops else "arithmetic",
        "times_faster_than": ratios,
    }


def measure_compiled(case: GpuCase, row: Row, clock: Clock) -> None:
    """Adds torch.compile's ratio to the row, beside ours measured again."""
    torch.compiler.reset()  # each case compiles for its own shape
    try:
        inputs = case.inputs()
        ratio = clock(case.baselines[COMPILED], *inputs) / clock(case.ours, *inputs)
    except Exception as error:
        row["error"] = f"{COMPILED}: {type(error).__name__}: {error}"
    else:
        row["times_faster_than"][COMPILED] = ratio


def measure_all(
    cases: Sequence[GpuCase], bandwidth: float, flops: float, results: Results, clock: Clock
) -> None:
    """Every case beside plain PyTorch, then, slow to begin with, beside torch.compile."""
    for case in cases:
        results.rows.append(measure(case, bandwidth, flops, clock))
        results.save()
    for case, row in zip(cases, results.rows, strict=True):
        if COMPILED in case.baselines and "error" not in row:
            measure_compiled(case, row, clock)
            results.save()
    results.content["complete"] = True
    results.save()


def table(rows: Sequence[Row]) -> list[str]:
    """The rows aligned, baselines as columns."""
    names = sorted({name for row in rows for name in row.get("times_faster_than", {})})
    lines = [["operator", "shape", "dtype", "µs", "share", "bound by", *(f"x {name}" for name in names)]]
    for row in rows:
        line = [row["operator"], row["shape"], row["dtype"]]
        if "microseconds" in row:
            line += [f"{row['microseconds']:.1f}", f"{row['share_of_least_time']:.0%}", row["bound_by"]]
            line += [f"{row['times_faster_than'].get(name, float('nan')):.2f}" for name in names]
        else:
            line += ["", "", row["error"].split("\n")[0][:60], *("" for _ in names)]
        lines.append(["" if cell == "nan" else cell for cell in line])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]


def without_tf32() -> None:
    """All of PyTorch's products in float32, as ours: by default cuDNN rounds the factors of convolutions to TF32."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: python bench/gpu_benchmark.py OUT.json", file=sys.stderr)
        return 2
    if not torch.cuda.is_available():
        print("gpu_benchmark: torch sees no NVIDIA GPU here", file=sys.stderr)
        return 2
    without_tf32()
    torch.manual_seed(0)
    driver = output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0")
    about = environment() | {"driver": driver, "cuda": str(torch.version.cuda), "tf32": "off"}
    results = Results(
        Path(sys.argv[1]), {"command": "python bench/gpu_benchmark.py OUT.json", "environment": about}
    )
    print(", ".join(f"{key} {value}" for key, value in about.items()), flush=True)
    bandwidth, rate = copy_bandwidth(), matrix_rate()
    results.content |= {"copy_bytes_per_second": bandwidth, "matrix_flops_per_second": rate}
    print(
        f"device copy {bandwidth / 1e9:.0f} GB/s, float32 matrix product {rate / 1e12:.1f} TFLOP/s",
        flush=True,
    )
    measure_all(all_cases(), bandwidth, rate, results, seconds)
    print("\n".join(table(results.rows)))
    return 1 if any("error" in row for row in results.rows) else 0


if __name__ == "__main__":
    sys.exit(main())
