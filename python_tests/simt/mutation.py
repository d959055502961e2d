"""Mutation test: a suite's cases must catch each barrier removed and each wrong variant.

``cd python_tests && python -m simt.mutation [suite ...]`` prints every mutant, how it was caught, and the
count.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import multiprocessing.connection
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from simt import build
from simt.library import SCHEDULES, SimtError, SimtLibrary
from simt.suite import Suite

_BARRIER = re.compile(r"(?:\b__sync(?:threads|warp)|\b\w+\.sync)\s*\([^;{}]*\)\s*;")
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_TIMEOUT_S = 120


@dataclass(frozen=True)
class Mutant:
    """The suite's sources with one change to one file."""

    suite: Suite
    name: str
    path: Path
    text: str

    def __str__(self) -> str:
        return f"{self.suite.name}: {self.name}"


def _sources(suite: Suite) -> list[Path]:
    """The files that a suite's mutants are made of."""
    headers = [build.CSRC / header for header in suite.headers]
    if suite.only_headers:
        return headers
    source = build.kernel_source(suite.name)
    own = source.parent.glob("*.h") if source.name == "cuda.cu" else ()
    return [source, *sorted(own), *headers]


def barrier_removals(suite: Suite) -> Iterator[Mutant]:
    """One mutant for each barrier."""
    for path in _sources(suite):
        text = path.read_text()
        comments = [m.span() for m in _COMMENT.finditer(text)]
        for barrier in _BARRIER.finditer(text):
            if any(begin <= barrier.start() < end for begin, end in comments):
                continue
            line = text.count("\n", 0, barrier.start()) + 1
            name = f"without {barrier[0].rstrip(';')} in {path.name}:{line}"
            yield Mutant(suite, name, path, text[: barrier.start()] + ";" + text[barrier.end() :])


def wrong_variants(suite: Suite) -> Iterator[Mutant]:
    """One mutant for each wrong variant that the suite declares."""
    texts = {path: path.read_text() for path in _sources(suite)}
    for variant in suite.wrong_variants:
        places = [(path, text) for path, text in texts.items() for _ in range(text.count(variant.old))]
        if len(places) != 1:
            raise ValueError(
                f"suite {suite.name}, wrong variant {variant.name!r}: its text must stand once in the "
                f"sources, it stands {len(places)} times: {variant.old!r}"
            )
        path, text = places[0]
        yield Mutant(suite, variant.name, path, text.replace(variant.old, variant.new))


def mutants(suite: Suite) -> list[Mutant]:
    return [*barrier_removals(suite), *wrong_variants(suite)]


def all_suites() -> list[Suite]:
    """The suites of the files python_tests/test_simt_*.py."""
    found = []
    for path in sorted(Path(__file__).parents[1].glob("test_simt_*.py")):
        if "\nsuite = Suite(" not in path.read_text():
            continue
        module = importlib.import_module(path.stem)
        found += [value for value in vars(module).values() if isinstance(value, Suite)]
    return found


def verdict(mutant: Mutant) -> str | None:
    """How the cases caught the mutant, or None where they did not.

    The mutant runs in a process of its own, as it may write anywhere or never end.

    Raises:
        RuntimeError: it does not compile, so it is no test of the cases.
    """
    with tempfile.TemporaryDirectory(prefix="led_fast_mutant_") as directory:
        library = build.variant(mutant.suite.name, {mutant.path: mutant.text}, Path(directory))
        receive, send = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context("fork").Process(
            target=_try_cases, args=(mutant.suite, library, send), daemon=True
        )
        process.start()
        send.close()
        try:
            if not receive.poll(_TIMEOUT_S):
                return f"ran longer than {_TIMEOUT_S} s"
            return receive.recv()
        except EOFError:  # it died before it could tell
            process.join()
            return f"crashed with exit code {process.exitcode}"
        finally:
            process.kill()
            process.join()


def _try_cases(suite: Suite, library: Path, send: multiprocessing.connection.Connection) -> None:
    torch.set_num_threads(1)
    kernels = SimtLibrary(suite.name, library)
    for schedule in SCHEDULES:
        kernels.configure(schedule)
        for case in suite.cases:
            try:
                case.run(kernels)
            except SimtError as error:
                first = error.reports[0] if error.reports else str(error).splitlines()[0]
                return send.send(f"{case}, {schedule}: {first}")
            except AssertionError as error:
                first = (str(error).strip() or "an assertion failed").splitlines()[0]
                return send.send(f"{case}, {schedule}: wrong result: {first}")
    send.send(None)


def todays_third(items: list[Mutant]) -> list[Mutant]:
    """A third of the mutants; which one goes round with the commits."""
    command = ["git", "-C", str(build.ROOT), "rev-list", "--count", "HEAD"]
    count = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return items[int(count or 0) % 3 :: 3]


def main() -> int:
    """Runs all mutants of the suites that are named, or of all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suites", nargs="*", help="for instance soft_relu; all where none is given")
    parser.add_argument("--third", action="store_true", help="only the third that is due at this commit")
    options = parser.parse_args()
    chosen = [s for s in all_suites() if not options.suites or s.name in options.suites]
    items = [mutant for suite in chosen for mutant in mutants(suite)]
    items = todays_third(items) if options.third else items
    caught = 0
    for mutant in items:
        result = verdict(mutant)
        caught += result is not None
        print(f"{'caught    ' if result else 'NOT CAUGHT'} {mutant}\n    {result or ''}", flush=True)
    print(f"{caught} of {len(items)} mutants caught")
    return int(caught < len(items))


if __name__ == "__main__":
    sys.exit(main())
