"""Damaged files, thousands for each reader: a result or an InputError, in seconds and in less than 1 GiB.

python python_tests/fuzz.py 10000 [READER ...]  # writes docs/results/fuzz.json, and the table of it in a page
"""

import json
import platform
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

from fuzz_mutations import damaged, edits
from fuzz_readers import readers
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from led_fast import __version__
from led_fast.errors import InputError

DOCS = Path(__file__).parents[1] / "docs"
RESULTS, PAGE = DOCS / "results" / "fuzz.json", DOCS / "contribute.md"
MARKS = "<!-- fuzz -->\n", "<!-- end of fuzz -->"

SECONDS = 10  # of the processor
MOST_MEMORY = 2**20  # KiB


def memory(reset=False):
    """The most that this process ever had in memory, in KiB; or from now on."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])


@contextmanager
def in_time(seconds):
    def late(*_):
        raise TimeoutError(f"took more than {seconds} s")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def read(reader, content):
    """Reads files of which one holds the content; an InputError is a result as well."""
    with tempfile.TemporaryDirectory() as folder:
        for name, valid in {**reader.beside, reader.target: content}.items():
            (Path(folder) / name).write_bytes(valid)
        try:
            with in_time(SECONDS):
                return reader.read(Path(folder))
        except InputError as error:
            return error


def fuzz(name, inputs):
    """Reads damaged files, always the same ones; how many of them were read and refused, and what it took."""
    reader, outcomes = readers()[name], Counter()

    @settings(
        max_examples=inputs,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 100), edits)
    def check(which, edits_of):
        found = read(reader, reader.content(which, lambda content: damaged(content, edits_of)))
        outcomes["refused" if isinstance(found, InputError) else "read"] += 1

    before, began = memory(reset=True), time.process_time()
    check()
    taken = memory() - before
    assert taken < MOST_MEMORY
    return {
        "inputs": outcomes.total(),
        "read": outcomes["read"],
        "refused": outcomes["refused"],
        "processor_seconds": round(time.process_time() - began),
        "memory_mib": round(taken / 1024),
    }


def table(results):
    """The results as Markdown."""
    rows = []
    for name, row in sorted(results["readers"].items()):
        counts = [f"{row[key]:,}" for key in ("inputs", "read", "refused", "memory_mib")]
        rows.append(" | ".join([f"| {name}", *counts, f"{len(row['findings'])} |"]))
    head = "| reader | inputs | read | refused | MiB at most | findings |"
    return "\n".join([head, "|---|--:|--:|--:|--:|--:|", *rows])


def write_page(results):
    text = PAGE.read_text()
    before, after = text[: text.index(MARKS[0]) + len(MARKS[0])], text[text.index(MARKS[1]) :]
    PAGE.write_text(f"{before}\n{table(results)}\n\n{after}")


def main(inputs, names):
    for name in names or readers():
        found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"readers": {}}
        found["command"] = "python python_tests/fuzz.py INPUTS READER ..."
        found["versions"] = {"led_fast": __version__, "python": platform.python_version()}
        try:
            found["readers"][name] = fuzz(name, int(inputs)) | {"findings": []}
        except Exception as error:
            notes = [f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())]
            found["readers"][name] = {
                "inputs": int(inputs),
                "read": 0,
                "refused": 0,
                "memory_mib": 0,
                "findings": notes,
            }
        print(name, found["readers"][name], flush=True)
        RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    write_page(json.loads(RESULTS.read_text()))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
