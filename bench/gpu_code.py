"""Counts the instructions in the loops of the built CUDA module, for docs/gpu.md and as a bound for the tests.

``python bench/gpu_code.py`` writes bench/results/gpu_code.json. Needs led_fast with its CUDA module, and cuobjdump.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from environment import environment
from sass import Instruction, Kernel, read_kernels

RESULTS = Path(__file__).parent / "results" / "gpu_code.json"


@dataclass(frozen=True)
class Loop:
    """The loop of a kernel that its time goes to: of those with a certain instruction the one that does most."""

    name: str
    kernel: str  # a pattern of its name, without namespace
    holds: str  # a pattern of the instruction
    element_bytes: int | None = None  # of what it stores; None: it multiplies and adds


def _elementwise(name: str, kernel: str) -> list[Loop]:
    return [
        Loop(f"{name} float32", kernel.format("float, 4"), "STG", 4),
        Loop(f"{name} bfloat16", kernel.format("__nv_bfloat16, 8"), "STG", 2),
        Loop(f"{name} float16", kernel.format("__half, 8"), "STG", 2),
    ]


LOOPS = [
    *_elementwise("soft_relu", "soft_relu::forward_kernel<{}, true, .*::Parameters<float>"),
    *_elementwise("soft_relu backward", "soft_relu::backward_kernel<{}, true, .*::Parameters<float>"),
    *_elementwise("soft_relu_inverse", "soft_relu::forward_kernel<{}, true, .*::InverseParameters<float>"),
    *_elementwise(
        "soft_relu_inverse backward", "soft_relu::backward_kernel<{}, true, .*::InverseParameters<float>"
    ),
    *(
        Loop(
            f"circulant_logdet {channels} channels{what}",
            f"warp_kernel<float, {channels}, {inverse}>",
            "SHFL",
        )
        for channels in (8, 16, 32)
        for what, inverse in (("", "false"), (" with gradient", "true"))
    ),
    *(
        Loop(f"circulant_logdet {rows} channels{what}", f"block_kernel<float, {inverse}, {slots}>", "LDS")
        for rows, slots in ((64, 2), (128, 4), (192, 6))
        for what, inverse in (("", "false"), (" with gradient", "true"))
    ),
    Loop("circular_conv_inverse", "solve_kernel<float, false>", "FFMA"),
    *(
        Loop(
            f"perpendicular_norm {channels} channels",
            f"perpendicular::transpose_kernel<float, {channels}>",
            "LDS",
        )
        for channels in (1, 2, 3, 4)
    ),
]


def count(kernels: list[Kernel]) -> list[dict[str, object]]:
    """A row for each loop and architecture."""
    rows = []
    for loop in LOOPS:
        found = [k for k in kernels if re.search(loop.kernel, k.name)]
        assert found, f"{loop.name}: no kernel {loop.kernel}"
        rows += [_row(loop, kernel) for kernel in sorted(found, key=lambda k: k.architecture)]
    return rows


def _row(loop: Loop, kernel: Kernel) -> dict[str, object]:
    found = [b for b in kernel.loops if kernel.count(loop.holds, b.instructions)]
    if loop.element_bytes:
        body = max(found, key=lambda b: len(b.instructions))
    else:
        body = max(found, key=lambda b: kernel.count("FFMA", b.instructions))
    row: dict[str, object] = {
        "loop": loop.name,
        "architecture": kernel.architecture,
        "registers": kernel.registers,
        "instructions": len(body.instructions),
        "always": len(body.always),
    }
    if loop.element_bytes:
        return row | {"elements": sum(map(_bytes_stored, body.instructions)) // loop.element_bytes}
    shared = sum(_bits(i) // 8 for i in body.instructions if i.opcode.startswith("LDS"))
    return row | {"multiply_adds": kernel.count("FFMA", body.instructions), "shared_bytes": shared}


def _bits(instruction: Instruction) -> int:
    found = re.search(r"\.U?(16|64|128)\b", instruction.opcode)
    return int(found[1]) if found else 32


def _bytes_stored(instruction: Instruction) -> int:
    return _bits(instruction) // 8 if instruction.opcode.startswith("STG") else 0


def read() -> dict:
    """The committed counts."""
    return json.loads(RESULTS.read_text())


def main() -> None:
    module = importlib.util.find_spec("led_fast._C_cuda")
    assert module is not None and module.origin is not None, "led_fast was built without its CUDA module"
    nvcc = subprocess.run(["nvcc", "--version"], check=True, capture_output=True, text=True).stdout
    made_by = {key: environment()[key] for key in ("led_fast", "commit")} | {
        "nvcc": nvcc.split("release ")[1].split(",")[0]
    }
    content = {"command": "python bench/gpu_code.py", "environment": made_by}
    content["rows"] = count(read_kernels(Path(module.origin)))
    RESULTS.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
