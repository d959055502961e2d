"""One SIMT library: its launchers, and what its checker found."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from simt import build
from simt.launchers import Launcher, read_launchers


class SimtError(AssertionError):
    """A launch failed, or the checker has something to report."""

    def __init__(self, launcher: str, code: int, reports: list[str]):
        super().__init__(f"{launcher} returned {code}\n" + "\n".join(reports))
        self.reports = reports


@dataclass(frozen=True)
class Schedule:
    """In which order threads and blocks take their turns."""

    name: str
    order: int  # simt::Schedule
    seed: int = 1
    preempt_permille: int = 0

    def __str__(self) -> str:
        return self.name


SCHEDULES = (
    Schedule("forward", 0),
    Schedule("reverse", 1),
    *(Schedule(f"random{seed}", 2, seed, preempt_permille=20 * (seed == 3)) for seed in (1, 2, 3)),
)


class _TrafficRow(ctypes.Structure):  # simt::TrafficRow
    _fields_ = [(n, ctypes.c_uint64) for n in ("code_offset", "requests", "lanes", "units", "ideal")] + [
        (n, ctypes.c_uint32) for n in ("bytes", "is_write", "is_shared")
    ]


@dataclass
class TrafficRow:
    """Memory traffic of one line: sectors of global memory, or passes over the banks of shared memory."""

    place: str
    space: str  # "global" or "shared"
    kind: str  # "read" or "write"
    bytes: int  # of one lane's access
    requests: int = 0
    lanes: int = 0
    units: int = 0
    ideal: int = 0

    def __str__(self) -> str:
        unit = "sectors" if self.space == "global" else "bank passes"
        return (
            f"{self.place:<32} {self.kind:<5} {self.space} {self.bytes:>2} B: {self.requests:>7} requests, "
            f"{self.lanes / self.requests:4.1f} lanes, {self.units / self.requests:5.2f} {unit} a request "
            f"(least {self.ideal / self.requests:5.2f})"
        )


class _Guarded:
    """A copy of a tensor between two stretches of a known pattern, aligned as the original was.

    The plain build checks no bounds, but what it writes beside a buffer shows here. AddressSanitizer knows
    the end of an allocation itself, so there the copy has no surroundings.
    """

    _PATTERN = 0xA5

    def __init__(self, tensor: torch.Tensor):
        assert tensor.is_contiguous(), "launchers take contiguous tensors"
        self.tensor = tensor
        self.bytes = tensor.numel() * tensor.element_size()
        margin = 0 if build.asan_loaded() else 256
        begin = margin + tensor.data_ptr() % 64  # torch aligns its allocations to 64 bytes
        self._storage = torch.full((begin + self.bytes + margin,), self._PATTERN, dtype=torch.uint8)
        self._inside = slice(begin, begin + self.bytes)
        self.address = self._storage.data_ptr() + begin
        ctypes.memmove(self.address, tensor.data_ptr(), self.bytes)

    def check(self, name: str, is_const: bool) -> None:
        """Asserts that only this buffer's bytes were written, then gives them to the tensor."""
        outside = torch.cat([self._storage[: self._inside.start], self._storage[self._inside.stop :]])
        assert (outside == self._PATTERN).all(), f"memory beside buffer {name!r} was written"
        if not is_const:
            ctypes.memmove(self.tensor.data_ptr(), self.address, self.bytes)


class SimtLibrary:
    """Loads ``libsimt_<name>_<build>.so`` and calls its launchers with CPU tensors for device memory."""

    def __init__(self, name: str, path: Path | None = None, build_type: str = "plain"):
        self.path = path or build.library(name, build_type)
        self.launchers: dict[str, Launcher] = read_launchers(build.kernel_source(name))
        self._lib = ctypes.CDLL(str(self.path))
        self._lib.simt_report.restype = ctypes.c_char_p
        self._lib.simt_launch_site.restype = ctypes.c_char_p
        self._lib.simt_traffic_rows.restype = ctypes.c_size_t
        self._lib.simt_configure.argtypes = [ctypes.c_int, ctypes.c_uint64, ctypes.c_int, ctypes.c_int]
        self._lib.simt_register_buffer.argtypes = [
            ctypes.c_void_p,
            ctypes.c_size_t,
            ctypes.c_char_p,
            ctypes.c_int,
        ]
        for launcher in self.launchers.values():
            function = getattr(self._lib, launcher.name)
            function.argtypes = [p.ctype for p in launcher.parameters]
            function.restype = ctypes.c_int

    def configure(self, schedule: Schedule, count_traffic: bool = False) -> None:
        self._lib.simt_configure(schedule.order, schedule.seed, schedule.preempt_permille, count_traffic)

    def launch(self, name: str, *args: torch.Tensor | int | float | None) -> None:
        """Calls a launcher. A tensor stands for each pointer (None for null); the stream is added.

        Raises:
            SimtError: the launcher gave an error code or the checker found something.
        """
        launcher = self.launchers[name]
        if len(args) != len(launcher.parameters) - 1:
            wanted = ", ".join(p.name for p in launcher.parameters[:-1])
            raise TypeError(f"{name} takes ({wanted}), got {len(args)} arguments")
        self._lib.simt_clear_buffers()
        self._lib.simt_clear_reports()
        copies: dict[int, _Guarded] = {}  # one a tensor, however often it is passed
        writable: set[int] = set()
        values: list[object] = []
        for parameter, arg in zip(launcher.parameters, args, strict=False):
            if not parameter.is_pointer or arg is None:
                values.append(arg)
                continue
            copy = copies.setdefault(id(arg), _Guarded(arg))
            if not parameter.is_const:
                writable.add(id(arg))
            self._lib.simt_register_buffer(
                copy.address, copy.bytes, parameter.name.encode(), int(id(arg) in writable)
            )
            values.append(copy.address if copy.bytes else None)
        code = getattr(self._lib, name)(*values, None)
        reports = [self._resolve(r) for r in self.reports()]
        if code or reports:
            raise SimtError(name, code, reports)
        for parameter, arg in zip(launcher.parameters, args, strict=False):
            if parameter.is_pointer and arg is not None:
                copies[id(arg)].check(parameter.name, id(arg) not in writable)

    def reports(self) -> list[str]:
        return [self._lib.simt_report(i).decode() for i in range(self._lib.simt_report_count())]

    def take_last_error(self) -> int:
        """What cudaGetLastError gives, and forgets."""
        return self._lib.cudaGetLastError()

    def launch_sites(self) -> dict[str, bool]:
        """Every launch the library holds, by line and template arguments, and whether it has run."""
        sites = {}
        for i in range(self._lib.simt_launch_site_count()):
            line, function = re.search(
                r"\[with int Line = (\d+); Body = (.*)\]$", self._lib.simt_launch_site(i).decode()
            ).groups()
            sites[f"line {line}, {function}"] = bool(self._lib.simt_launch_site_ran(i))
        return sites

    def traffic(self) -> list[TrafficRow]:
        """Memory traffic since configure(..., count_traffic=True), by line of the source."""
        pointer = ctypes.POINTER(_TrafficRow)()
        count = self._lib.simt_traffic_rows(ctypes.byref(pointer))
        rows = [pointer[i] for i in range(count)]
        places = self._source_lines([r.code_offset for r in rows])
        merged: dict[tuple, TrafficRow] = {}
        for row, place in zip(rows, places, strict=True):
            space, kind = ("shared" if row.is_shared else "global"), ("write" if row.is_write else "read")
            total = merged.setdefault(
                (place, space, kind, row.bytes), TrafficRow(place, space, kind, row.bytes)
            )
            total.requests += row.requests
            total.lanes += row.lanes
            total.units += row.units
            total.ideal += row.ideal
        return [merged[key] for key in sorted(merged)]

    def _resolve(self, report: str) -> str:
        return re.sub(r"code\+0x([0-9a-f]+)", lambda m: next(self._source_lines([int(m[1], 16)])), report)

    def _source_lines(self, offsets: list[int]) -> Iterator[str]:
        """The innermost line of each address that is not in the executor's or CUDA's headers."""
        if not offsets:
            return
        command = ["addr2line", "-a", "-i", "-e", str(self.path), *map(hex, offsets)]
        for block in re.split(r"^0x[0-9a-f]+\n", build.run(command), flags=re.MULTILINE)[1:]:
            lines = [re.sub(r" \(discriminator \d+\)", "", line) for line in block.splitlines()]
            own = [line for line in lines if "/csrc/" in line and not re.search(r"/simt/[^/]+\.h:", line)]
            yield re.sub(r"^.*/csrc/", "", (own or lines)[0])
