"""Damaged files: every reader gives a result or an InputError, in seconds and in less than 1 GiB."""

import re
import signal
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from fuzz_mutations import damaged, edits
from fuzz_readers import readers
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from led_fast.errors import InputError

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
    reader = readers()[name]

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
        read(reader, reader.content(which, lambda content: damaged(content, edits_of)))

    before = memory(reset=True)
    check()
    assert memory() - before < MOST_MEMORY


@pytest.mark.parametrize("name", readers())
def test_valid_files_are_read(name):
    reader = readers()[name]
    for which in range(len(reader.contents)):
        found = read(reader, reader.content(which, bytes))
        assert not isinstance(found, InputError), found


# Inputs in the default suite, half a minute in all on one core; `slow` has 10,000 a reader.
INPUTS = dict.fromkeys(readers(), 120) | dict.fromkeys(["CSV", "CSV.gz", "parquet"], 40)
INPUTS |= dict.fromkeys(["table.safetensors", "checkpoint.safetensors"], 60)


@pytest.mark.parametrize("name", readers())
def test_damaged_files_are_read_or_refused(name):
    fuzz(name, INPUTS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", readers())
def test_many_damaged_files_are_read_or_refused(name):
    fuzz(name, 10_000)
