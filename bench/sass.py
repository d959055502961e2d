"""What the compiler made of CUDA kernels: registers, launch bounds and instructions, as cuobjdump prints them."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import networkx

_REGISTERS_OF_SM = 65536
_PART = re.compile(r"^Fatbin (elf|ptx) code:$", re.MULTILINE)
_ARCHITECTURE = re.compile(r"^arch = (sm_\d+)$", re.MULTILINE)
_USAGE = re.compile(r"Function ([\w$.]+):\s*REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")
_FUNCTION = re.compile(r"^\s*Function : ([\w$.]+)$", re.MULTILINE)
_INSTRUCTION = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(@!?U?P\w+ )?([A-Z][\w.]*)([^;]*);", re.MULTILINE)
_ENDS_BLOCK = re.compile("BRA|BRX|JMP|EXIT|RET")
_ENTRY = re.compile(r"\.entry (\w+)\([^)]*\)([^{]*)\{")


@dataclass(frozen=True)
class Instruction:
    """One line of SASS."""

    address: int
    predicated: bool
    opcode: str  # with its modifiers: LDG.E.128
    operands: str

    @property
    def target(self) -> int | None:
        """Where a branch goes."""
        found = re.search(r"0x([0-9a-f]+)$", self.operands) if self.opcode.startswith("BRA") else None
        return int(found[1], 16) if found else None

    @property
    def may_go_on(self) -> bool:
        """Whether the next instruction can follow."""
        conditional = self.predicated or self.opcode == "BRA.DIV" or re.match(r"!?U?P\w", self.operands)
        return bool(conditional) or not _ENDS_BLOCK.match(self.opcode)


class Loop(NamedTuple):
    """An innermost loop."""

    instructions: tuple[Instruction, ...]
    always: tuple[Instruction, ...]  # those of them that every pass takes


@dataclass(frozen=True)
class Kernel:
    """One compiled kernel."""

    name: str  # with its template arguments, without namespaces and parameters
    architecture: str
    registers: int
    local_bytes: int  # of stack and spills, a thread
    max_threads: int | None  # None: no __launch_bounds__
    min_blocks: int
    instructions: tuple[Instruction, ...]

    @property
    def registers_promised(self) -> int:
        """Registers a thread may use so that `min_blocks` blocks of `max_threads` fit on a multiprocessor."""
        warps = -(-(self.max_threads or 1024) // 32) * self.min_blocks
        return min(255, _REGISTERS_OF_SM // (32 * warps) // 8 * 8)  # allocated by 8 a thread

    def count(self, pattern: str, among: tuple[Instruction, ...] | None = None) -> int:
        """Instructions whose opcode begins with a pattern."""
        instructions = self.instructions if among is None else among
        return sum(re.match(pattern, i.opcode) is not None for i in instructions)

    @property
    def operator(self) -> str:
        """Its namespace within led, which is its folder's name."""
        return self.name.split("::")[1]

    @functools.cached_property
    def loops(self) -> list[Loop]:
        """Innermost loops, in their order: what a branch back to a block that dominates it can run again."""
        graph, blocks = _flow(self.instructions)
        start = self.instructions[0].address
        dominator = networkx.immediate_dominators(graph, start) | {start: start}
        bodies: dict[int, set[int]] = {}
        always: dict[int, set[int]] = {}  # in every pass, whichever branch it comes back by
        for end, head in graph.edges:
            if end in dominator and _dominates(dominator, head, end):
                inside = {end} if end == head else networkx.ancestors(_without(graph, head), end) | {end}
                bodies.setdefault(head, set()).update(inside & dominator.keys(), {head})
                passed = {block for block in bodies[head] if _dominates(dominator, block, end)}
                always[head] = always.get(head, passed) & passed
        inner = [h for h, body in bodies.items() if not any(h != other and other in body for other in bodies)]

        def of(chosen: set[int]) -> tuple[Instruction, ...]:
            return tuple(i for block in sorted(chosen) for i in blocks[block])

        return [Loop(of(bodies[h]), of(always[h])) for h in sorted(inner)]

    def __str__(self) -> str:
        return (
            f"{self.architecture} {self.registers:3d} of {self.registers_promised} registers, "
            f"{self.local_bytes} bytes of local memory, {len(self.instructions)} instructions, {self.name}"
        )


def _flow(instructions: tuple[Instruction, ...]) -> tuple[networkx.DiGraph, dict[int, list[Instruction]]]:
    """The blocks of a kernel, by the address that they begin at, and which follows which."""
    targets = {i.target for i in instructions}
    blocks: dict[int, list[Instruction]] = {}
    begins = True
    for instruction in instructions:
        if begins or instruction.address in targets:
            block = blocks.setdefault(instruction.address, [])
        block.append(instruction)
        begins = _ENDS_BLOCK.match(instruction.opcode) is not None
    graph = networkx.DiGraph()
    graph.add_nodes_from(blocks)
    addresses = list(blocks)
    for begin, following in zip(addresses, [*addresses[1:], None], strict=True):
        last = blocks[begin][-1]
        if last.target in blocks:
            graph.add_edge(begin, last.target)
        if following is not None and last.may_go_on:
            graph.add_edge(begin, following)
    return graph, blocks


def _dominates(dominator: dict[int, int], a: int, b: int) -> bool:
    while b != a and dominator[b] != b:
        b = dominator[b]
    return a == b


def _without(graph: networkx.DiGraph, node: int) -> networkx.DiGraph:
    return graph.subgraph(graph.nodes - {node})


def cuobjdump() -> str | None:
    """The program, which calls nvdisasm, of packages or of a CUDA toolkit; None where one of the two is missing."""
    programs = [shutil.which(name, path=_path()) for name in ("cuobjdump", "nvdisasm")]
    return programs[0] if all(programs) else None


def _path() -> str:
    """PATH, with the folders of the packages nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm."""
    folders = []
    for name in ("cuobjdump", "nvdisasm"):
        try:
            files = importlib.metadata.files(f"nvidia-cuda-{name}") or []
        except importlib.metadata.PackageNotFoundError:
            continue
        folders += [str(Path(str(f.locate())).parent) for f in files if f.name == name]
    return os.pathsep.join([*folders, os.environ["PATH"]])


@functools.cache
def read_kernels(binary: Path) -> list[Kernel]:
    """All kernels in an extension module, a fatbin or a cubin, of every architecture it holds machine code of."""
    usage = {
        (architecture, found[1]): (int(found[2]), int(found[3]) + int(found[5]))
        for architecture, text in _by_architecture(_dump(binary, "-res-usage"))
        for found in _USAGE.finditer(text)
    }
    bounds = dict(_ENTRY.findall(_dump(binary, "-ptx")))
    code = {
        (architecture, symbol): _instructions(text)
        for architecture, functions in _by_architecture(_dump(binary, "-sass"))
        for symbol, text in _pairs(_FUNCTION.split(functions)[1:])
    }
    assert usage.keys() == code.keys(), f"{binary}: resources and code of different kernels"
    names = _names(sorted({symbol for _, symbol in usage}))
    kernels = []
    for (architecture, symbol), (registers, local_bytes) in usage.items():
        directives = bounds.get(symbol, "")
        threads = re.search(r"\.maxntid (\d+)(?:, (\d+))?(?:, (\d+))?", directives)
        blocks = re.search(r"\.minnctapersm (\d+)", directives)
        max_threads = None
        if threads:
            max_threads = int(threads[1]) * int(threads[2] or 1) * int(threads[3] or 1)
        kernels.append(
            Kernel(
                names[symbol],
                architecture,
                registers,
                local_bytes,
                max_threads,
                int(blocks[1]) if blocks else 1,
                code[architecture, symbol],
            )
        )
    return kernels


def _dump(binary: Path, what: str) -> str:
    program = cuobjdump()
    assert program is not None, "cuobjdump is missing"
    done = subprocess.run(
        [program, what, str(binary)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": _path()},
    )
    return done.stdout


def _by_architecture(text: str) -> list[tuple[str, str]]:
    """The parts of a dump, one for each cubin."""
    parts = [part for kind, part in _pairs(_PART.split(text)[1:]) if kind == "elf"]
    return [(found[1], part) for part in parts if (found := _ARCHITECTURE.search(part))]


def _pairs(values: list[str]) -> list[tuple[str, str]]:
    return list(zip(values[::2], values[1::2], strict=True))


def _instructions(text: str) -> tuple[Instruction, ...]:
    found = (
        Instruction(int(m[1], 16), m[2] is not None, m[3], m[4].strip()) for m in _INSTRUCTION.finditer(text)
    )
    return tuple(i for i in found if i.opcode != "NOP")  # padding


def _names(symbols: list[str]) -> dict[str, str]:
    done = subprocess.run(["c++filt", *symbols], check=True, capture_output=True, text=True)
    plain = [re.sub(r"\(anonymous namespace\)::|^void ", "", line) for line in done.stdout.splitlines()]
    return {symbol: re.sub(r"\(.*\)$", "", name) for symbol, name in zip(symbols, plain, strict=True)}
