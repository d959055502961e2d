"""`pytest bench/ --benchmark`: side-by-side timings, a ratio table at the end, a JSON file under bench/results/.

Without --benchmark every benchmark runs once, as a smoke test. Contenders of one comparison are timed in turns in one
process, and the least time of each counts: ratios hold on a noisy machine, absolute times do not. pytest-benchmark
keeps the statistics of our own side, with the ratios as extra info (`--benchmark-json`, `--benchmark-autosave`, …).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest
import torch
from environment import environment
from pytest_benchmark.fixture import BenchmarkFixture

RESULTS = Path(__file__).parent / "results"
_ROWS = pytest.StashKey[list["Row"]]()


@dataclass
class Row:
    """One comparison: what was measured, each contender's least time in seconds, and derived figures."""

    group: str
    case: dict[str, object]
    seconds: dict[str, float]
    figures: dict[str, float] = field(default_factory=dict)

    def ratio(self, contender: str) -> float:
        """How many times faster led_fast is than the contender."""
        return self.seconds[contender] / self.seconds["led_fast"]


@dataclass
class Comparison:
    """Times contenders against each other."""

    measuring: bool
    seconds: float
    rows: list[Row]
    benchmark: BenchmarkFixture

    def __call__(
        self, group: str, case: dict[str, object], contenders: dict[str, Callable[[], object]]
    ) -> Row:
        """Runs every contender in turns until the time is spent; `contenders["led_fast"]` is ours."""
        for run in contenders.values():
            run()  # compiles, allocates, and is the smoke test
        row = Row(group, case, dict.fromkeys(contenders, float("inf")))
        if self.measuring:
            repeats = {name: _repeats(run) for name, run in contenders.items()}
            stop, rounds = time.perf_counter() + self.seconds, 0
            while rounds < 5 or time.perf_counter() < stop:
                for name, run in contenders.items():
                    row.seconds[name] = min(row.seconds[name], _time(run, repeats[name]))
                rounds += 1
            self.rows.append(row)
        self.benchmark.group = group
        self.benchmark.extra_info.update(case, **{f"times faster than {c}": row.ratio(c) for c in contenders})
        self.benchmark.pedantic(contenders["led_fast"], rounds=5, iterations=1)
        return row


def _time(run: Callable[[], object], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeats


def _repeats(run: Callable[[], object]) -> int:
    """So many calls that one timing lasts about half a millisecond or more."""
    return max(1, int(5e-4 / max(_time(run, 3), 1e-7)))


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("benchmark")
    group.addoption(
        "--benchmark",
        action="store_true",
        help="compare and save the results; --benchmark-max-time is the least time for one comparison",
    )
    group.addoption("--benchmark-out", type=Path, default=RESULTS, help="folder of the JSON files")
    group.addoption(
        "--beside", type=Path, metavar="PYTHON", help="a Python with another led_fast to train beside"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_ROWS] = []
    config.option.benchmark_disable = not config.getoption("--benchmark")


@pytest.fixture(scope="session")
def measuring(request: pytest.FixtureRequest) -> bool:
    """Whether --benchmark was given."""
    return request.config.getoption("--benchmark")


@pytest.fixture
def compare(request: pytest.FixtureRequest, measuring: bool, benchmark: BenchmarkFixture) -> Comparison:
    seconds = float(request.config.getoption("--benchmark-max-time"))
    return Comparison(measuring, seconds, request.config.stash[_ROWS], benchmark)


@pytest.fixture
def record(
    request: pytest.FixtureRequest, measuring: bool
) -> Callable[[str, dict[str, object], float, dict[str, float]], None]:
    """Keeps a row that no comparison makes: group, case, seconds, figures."""

    def record(group: str, case: dict[str, object], seconds: float, figures: dict[str, float]) -> None:
        if measuring:
            request.config.stash[_ROWS].append(Row(group, case, {"led_fast": seconds}, figures))

    return record


@pytest.fixture
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Sets torch's number of threads; parametrize it indirectly."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    all_rows = config.stash[_ROWS]
    if not all_rows:
        return
    out: Path = config.getoption("--benchmark-out")
    out.mkdir(parents=True, exist_ok=True)
    for group in dict.fromkeys(row.group for row in all_rows):
        rows = [row for row in all_rows if row.group == group]
        terminalreporter.section(f"{group}: times faster than …")
        for line in table(rows):
            terminalreporter.write_line(line)
        kind = "cuda" if torch.cuda.is_available() else "cpu"
        command = f"pytest bench/ --benchmark --benchmark-max-time={config.getoption('--benchmark-max-time')}"
        record = {"command": command, "environment": environment(), "rows": [asdict(row) for row in rows]}
        path = out / f"{group}_{kind}.json"
        path.write_text(json.dumps(record, indent=1) + "\n")
        terminalreporter.write_line(f"saved {path}")


def table(rows: list[Row]) -> list[str]:
    """A row for each case: ours in microseconds, the ratio to each contender, and the figures."""
    cases, contenders, figures = (
        list(dict.fromkeys(key for row in rows for key in getattr(row, part)))
        for part in ("case", "seconds", "figures")
    )
    contenders.remove("led_fast")
    lines = [[*cases, "led_fast µs", *contenders, *figures]]
    for row in rows:
        cells = [str(row.case.get(key, "")) for key in cases]
        cells.append(f"{row.seconds['led_fast'] * 1e6:.1f}")
        cells += [f"{row.ratio(name):.2f}" if name in row.seconds else "" for name in contenders]
        cells += [f"{row.figures[key]:.2f}" if key in row.figures else "" for key in figures]
        lines.append(cells)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
