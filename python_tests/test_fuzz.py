"""Damaged files: every reader gives a result or an InputError, in seconds and in less than 1 GiB."""

import gzip
import io
import json
import zipfile

import pytest
from fuzz import MARKS, MOST_MEMORY, PAGE, RESULTS, fuzz, memory, read, table
from fuzz_readers import readers

from led_fast.errors import InputError


@pytest.mark.parametrize("name", readers())
def test_valid_files_are_read(name):
    reader = readers()[name]
    for which in range(len(reader.contents)):
        found = read(reader, reader.content(which, bytes))
        assert not isinstance(found, InputError), found


def headless(array):
    return array[:8] + b"\x76\0" + b"{'descr': '<f8', 'shape': (3, ".ljust(118)


def with_config(change):
    """A table's model whose config was changed, with a header that is right otherwise."""
    content = readers()["table.safetensors"].contents[0]
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    own = json.loads(header["__metadata__"]["led_fast"])
    change(own)
    header["__metadata__"]["led_fast"] = json.dumps(own)
    packed = json.dumps(header).encode()
    return len(packed).to_bytes(8, "little") + packed + content[8 + length :]


def wide_network(own):
    config = dict(own["skeleton"]["dict"])["config"]["dict"]
    model = dict(config)["model"]["dict"]
    for pair in dict(model)["generator"]["dict"]:
        if pair[0] == "width":
            pair[1] = 30_000


def without(name):
    def change(own):
        own["skeleton"]["dict"] = [pair for pair in own["skeleton"]["dict"] if pair[0] != name]

    return change


def deep(own):
    own["skeleton"] = [[[[]]]]


# What came of inputs that were found by fuzzing: another exception than InputError, or memory without end.
FINDINGS = {
    "npy header without an end: TokenError": ("npy table", lambda: headless(b"\x93NUMPY\1\0")),
    "the same of images": ("npy images", lambda: headless(b"\x93NUMPY\1\0")),
    "npz of text: AttributeError": ("npz", lambda: zipped(images=b"no array")),
    "npz of a damaged member: TokenError": ("npz", lambda: zipped(images=headless(b"\x93NUMPY\1\0"))),
    "npz that is a npy: AttributeError": ("npz", lambda: readers()["npy images"].contents[0]),
    "labels without an end: RecursionError": ("CIFAR labels", lambda: b"[" * 100_000),
    "pickle of 3 GiB that are not there": (
        "CIFAR batches",
        lambda: b"\x80\5\x96" + (3 * 2**30).to_bytes(8, "little") + b".",
    ),
    "pickle with a memo of 2^28 places: 4 GiB": (
        "CIFAR batches",
        lambda: b"\x80\3}r" + (2**28).to_bytes(4, "little") + b".",
    ),
    "gzip of nonsense: zlib.error": ("CSV.gz", lambda: gzip.compress(b"a,b\n1,2\n" * 99)[:14] + b"\7" * 30),
    "config without an end: RecursionError": ("config.json", lambda: b'{"a":' * 50_000),
    "metrics without an end: RecursionError": ("metrics.jsonl", lambda: b"[" * 100_000 + b"\n"),
    "metrics that are no objects": ("metrics.jsonl", lambda: b"3\n"),
    "model without a config: KeyError": ("table.safetensors", lambda: with_config(without("config"))),
    "model without weights: KeyError": ("table.safetensors", lambda: with_config(without("model"))),
    "model that is a list": ("table.safetensors", lambda: with_config(deep)),
    "model of networks beyond its weights: 4 GB each": (
        "table.safetensors",
        lambda: with_config(wide_network),
    ),
}


def zipped(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


@pytest.mark.parametrize("name", FINDINGS)
def test_findings_are_refused(name):
    reader, content = FINDINGS[name]
    before = memory(reset=True)
    found = read(readers()[reader], content())
    assert isinstance(found, InputError) and len(str(found)) < 1000
    assert memory() - before < MOST_MEMORY


REPORT = '{"log_normalizer": {"reliable": %s, "reason": "", "evidence": {}, "interval": [0, 1], "value": %s}}'


@pytest.mark.parametrize(
    "content",
    [b"", b"3", b"[" * 100_000, (REPORT % ('"no"', 0)).encode(), (REPORT % ("true", "9" * 400)).encode()],
    ids=["empty", "number", "deep", "word", "beyond float"],
)
def test_a_damaged_report_is_no_matter(content):
    """The verdict of the end of training stands."""
    found = read(readers()["report.json"], content)
    assert not isinstance(found, InputError)


# Inputs in the default suite, half a minute in all on one core; `slow` has 10,000 a reader.
INPUTS = dict.fromkeys(readers(), 120) | dict.fromkeys(["CSV", "CSV.gz", "parquet"], 40)
INPUTS |= dict.fromkeys(["table.safetensors", "checkpoint.safetensors"], 60)


@pytest.mark.parametrize("name", readers())
def test_damaged_files_are_read_or_refused(name):
    fuzz(name, INPUTS[name])


def test_the_page_says_what_was_tried():
    results = json.loads(RESULTS.read_text())
    assert results["readers"].keys() == readers().keys()
    assert not any(row["findings"] for row in results["readers"].values())
    assert f"{MARKS[0]}\n{table(results)}\n\n{MARKS[1]}" in PAGE.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", readers())
def test_many_damaged_files_are_read_or_refused(name):
    fuzz(name, 10_000)
