"""Times every operator on the GPU beside plain PyTorch, and prints its share of what the GPU can do.

``python bench/gpu_benchmark.py OUT.json``. Measured first: the bandwidth of a device copy and the rate of
a float32 matrix product (no TF32). A share is the time that the least memory traffic or arithmetic would take
at those rates, over ours.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch
from conftest import environment
from gpu_cases import DEVICE, GpuCase, all_cases
from rich.console import Console
from rich.table import Table
from torch.utils.benchmark import Timer

_MIN_RUN_TIME_S = 0.15


def seconds(call, *inputs) -> float:
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


def measure(case: GpuCase, bandwidth: float, flops: float) -> dict[str, object]:
    """One row of the result."""
    torch.compiler.reset()  # each case compiles for its own shape
    inputs = case.inputs()
    ours = seconds(case.ours, *inputs)
    least = max(case.least_bytes / bandwidth, case.least_flops / flops)
    baselines = {name: seconds(call, *inputs) / ours for name, call in case.baselines.items()}
    return {
        "operator": case.operator,
        "shape": case.shape,
        "dtype": str(case.dtype).removeprefix("torch."),
        "microseconds": ours * 1e6,
        "share_of_least_time": least / ours,
        "bound_by": "memory" if case.least_bytes / bandwidth >= case.least_flops / flops else "arithmetic",
        "times_faster_than": baselines,
    }


def driver_version() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def print_table(result: dict) -> None:
    """The rows as a table, baselines as columns."""
    names = sorted({name for row in result["rows"] for name in row["times_faster_than"]})
    table = Table("operator", "shape", "dtype", "µs", "share", "bound by", *(f"x {name}" for name in names))
    for row in result["rows"]:
        ratios = (row["times_faster_than"].get(name) for name in names)
        table.add_row(
            row["operator"],
            row["shape"],
            row["dtype"],
            f"{row['microseconds']:.1f}",
            f"{row['share_of_least_time']:.0%}",
            row["bound_by"],
            *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios),
        )
    console = Console(width=140)
    console.print(", ".join(f"{key} {value}" for key, value in result["environment"].items()))
    bandwidth, rate = result["copy_bytes_per_second"], result["matrix_flops_per_second"]
    console.print(
        f"device copy {bandwidth / 1e9:.0f} GB/s, float32 matrix product {rate / 1e12:.1f} TFLOP/s", table
    )


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: python bench/gpu_benchmark.py OUT.json", file=sys.stderr)
        return 2
    if not torch.cuda.is_available():
        print("gpu_benchmark: torch sees no NVIDIA GPU here", file=sys.stderr)
        return 2
    bandwidth, rate = copy_bandwidth(), matrix_rate()
    rows = [measure(case, bandwidth, rate) for case in all_cases()]
    result = {
        "environment": environment() | {"driver": driver_version(), "cuda": str(torch.version.cuda)},
        "copy_bytes_per_second": bandwidth,
        "matrix_flops_per_second": rate,
        "rows": rows,
    }
    Path(sys.argv[1]).write_text(json.dumps(result, indent=2) + "\n")
    print_table(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
