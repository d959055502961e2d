"""The tests of one .cu file: cases that run its launchers, and wrong variants that the cases must catch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import pytest
import torch

from simt import build
from simt.library import SCHEDULES, Schedule, SimtLibrary, TrafficRow

Kernels = SimtLibrary  # what a case receives


@dataclass(frozen=True)
class Case:
    """One call of a test body with one choice of its arguments."""

    body: Callable[..., None]
    arguments: dict[str, object]

    def __str__(self) -> str:
        values = (str(v).removeprefix("torch.").replace(" ", "") for v in self.arguments.values())
        return "-".join([self.body.__name__, *values])

    def run(self, kernels: Kernels) -> None:
        torch.manual_seed(0)
        self.body(kernels, **self.arguments)


@dataclass(frozen=True)
class WrongVariant:
    """A mistake that somebody could make: `old` stands once in the source, `new` is wrong."""

    name: str
    old: str
    new: str


@dataclass
class Suite:
    """Cases and wrong variants of ``csrc/<name>/cuda.cu``.

    Mutants are made of that file, of the headers beside it, and of `headers` (paths below csrc); of these
    alone where `only_headers` says that another suite has the file.
    """

    name: str
    headers: tuple[str, ...] = ()
    only_headers: bool = False
    cases: list[Case] = field(default_factory=list)
    wrong_variants: list[WrongVariant] = field(default_factory=list)

    def case(self, **choices: Iterable[object]) -> Callable[[Callable[..., None]], Callable[..., None]]:
        """Adds the decorated function once for each combination of its arguments' choices.

        The function takes the kernels, launches them on contiguous CPU tensors and asserts what came out.
        """

        def add(body: Callable[..., None]) -> Callable[..., None]:
            for values in itertools.product(*choices.values()):
                self.cases.append(Case(body, dict(zip(choices, values, strict=True))))
            return body

        return add

    def wrong(self, name: str, old: str, new: str) -> None:
        """Adds a wrong variant: the text `old`, which stands exactly once in the sources, becomes `new`."""
        self.wrong_variants.append(WrongVariant(name, old, new))

    def test_cases(self) -> Callable[..., None]:
        """The test that runs every case in the plain and the check build under every schedule."""

        @pytest.mark.parametrize("case", self.cases, ids=str)
        @pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
        @pytest.mark.parametrize("build_type", build_types())
        def test(build_type: str, schedule: Schedule, case: Case) -> None:
            kernels = load(self.name, build_type)
            kernels.configure(schedule)
            case.run(kernels)

        return test

    def traffic(self, body: Callable[..., None], **arguments: object) -> list[TrafficRow]:
        """Runs one case in the check build and prints and returns the memory traffic of each line."""
        kernels = load(self.name, "check")
        kernels.configure(SCHEDULES[0], count_traffic=True)
        Case(body, arguments).run(kernels)
        rows = kernels.traffic()
        print(*rows, sep="\n")
        return rows

    def test_launches(self) -> Callable[[], None]:
        """The test that the cases execute every launch, that is every dispatch branch, in the source."""

        def test() -> None:
            kernels = load(self.name, build_types()[0])
            kernels.configure(SCHEDULES[0])
            for case in self.cases:
                case.run(kernels)
            never = [site for site, ran in kernels.launch_sites().items() if not ran]
            assert not never, "launches that no case executes:\n" + "\n".join(never)

        return test


def build_types() -> tuple[str, ...]:
    """Both builds; under AddressSanitizer the one made for it."""
    return ("asan",) if build.asan_loaded() else ("plain", "check")


_loaded: dict[tuple[str, str], SimtLibrary] = {}


def load(name: str, build_type: str) -> SimtLibrary:
    """The library of that name and build; skips the test where it cannot be built."""
    if reason := build.missing_requirement():
        pytest.skip(reason)
    if (name, build_type) not in _loaded:
        _loaded[name, build_type] = SimtLibrary(name, build_type=build_type)
    return _loaded[name, build_type]
