"""What ptxas says about the kernels of a .cu file: registers, spills, and their launch bounds."""

from __future__ import annotations

import hashlib
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from simt import build

ARCHITECTURE = "sm_90"
_REGISTERS_OF_SM = 65536
_ENTRY = re.compile(r"\.entry (\w+)\([^)]*\)([^{]*)\{")
_REPORT = re.compile(
    rf"Compiling entry function '(\w+)' for '{ARCHITECTURE}'"
    r".*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
    r".*?Used (\d+) registers",
    re.DOTALL,
)


@dataclass(frozen=True)
class KernelReport:
    """One compiled kernel."""

    name: str  # with its template arguments
    registers: int
    stack_bytes: int
    spill_bytes: int  # stores and loads
    max_threads: int | None  # None: no __launch_bounds__
    min_blocks: int

    @property
    def registers_promised(self) -> int:
        """Registers a thread may use so that `min_blocks` blocks of `max_threads` fit on a multiprocessor."""
        warps = -(-(self.max_threads or 1024) // 32) * self.min_blocks
        return min(255, _REGISTERS_OF_SM // (32 * warps) // 8 * 8)  # allocated by 8 a thread

    def __str__(self) -> str:
        return (
            f"{self.registers:3d} of {self.registers_promised} registers, {self.spill_bytes} bytes spilled, "
            f"{self.stack_bytes} bytes of stack, {self.max_threads} threads x {self.min_blocks}  {self.name}"
        )


def _compile(source: Path, cache: Path) -> tuple[str, str]:
    """PTX and ptxas' report, compiled once for each content of the sources."""
    files = [source, *sorted(source.parent.glob("*.h*")), *sorted((build.CSRC / "common").iterdir())]
    key = hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:16]
    ptx, report = (cache / f"{source.parent.name}-{key}.{kind}" for kind in ("ptx", "ptxas"))
    if not report.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as directory:
            command = ["nvcc", "-std=c++17", f"-arch={ARCHITECTURE}", "-lineinfo"]
            command += ["-I", str(build.CSRC), "-cubin", "-Xptxas", "-v", "--keep", "--keep-dir", directory]
            text = build.run([*command, "-o", f"{directory}/out.cubin", str(source)])
            ptx.write_text(next(Path(directory).glob("*.ptx")).read_text())
            report.write_text(text)
    return ptx.read_text(), report.read_text()


def kernel_reports(source: Path) -> list[KernelReport]:
    """One report for each kernel instantiation of a .cu file, compiled for sm_90."""
    ptx, log = _compile(source, build.ROOT / "build" / "ptxas")
    bounds = dict(_ENTRY.findall(ptx))
    found = _REPORT.findall(log)
    assert len(found) == len(bounds), f"{source}: {len(bounds)} kernels, {len(found)} reports of ptxas"
    names = build.run(["c++filt", *(f[0] for f in found)]).splitlines() if found else []
    reports = []
    for name, (symbol, stack, stores, loads, registers) in zip(names, found, strict=True):
        threads = re.search(r"\.maxntid (\d+)(?:, (\d+))?(?:, (\d+))?", bounds[symbol])
        blocks = re.search(r"\.minnctapersm (\d+)", bounds[symbol])
        max_threads = None
        if threads:
            max_threads = int(threads[1]) * int(threads[2] or 1) * int(threads[3] or 1)
        reports.append(
            KernelReport(
                re.sub(r"\(anonymous namespace\)::", "", name),
                int(registers),
                int(stack),
                int(stores) + int(loads),
                max_threads,
                int(blocks[1]) if blocks else 1,
            )
        )
    return reports
