"""bench/gpu_benchmark.py without a GPU: rows as they come, in what order, and what is left when it is stopped."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

import led_fast

BENCH = Path(__file__).parents[1] / "bench"


@pytest.fixture(scope="module")
def gpu():
    sys.path.insert(0, str(BENCH))
    import gpu_benchmark

    return gpu_benchmark


@pytest.fixture(scope="module")
def cases(gpu):
    """A plain case, and two with torch.compile: the one before the other is slow."""
    import gpu_cases

    def case(name, baselines):
        return gpu_cases.GpuCase(
            name,
            "1",
            torch.float32,
            inputs=lambda: (name,),
            ours="ours",
            baselines={baseline: baseline for baseline in baselines},
            least_bytes=10,
        )

    return [case("a", ["eager", "compile"]), case("b", ["eager"]), case("c", ["compile", "eager"])]


def seconds_of(call, name):
    return {"ours": 2.0, "eager": 6.0, "compile": 3.0}[call]


def test_rows_come_at_once_and_compiled_ratios_last(gpu, cases, tmp_path):
    path, measured, states = tmp_path / "results.json", [], []

    def clock(call, name):
        measured.append((call, name))
        states.append(json.loads(path.read_text()))  # valid at any moment
        return seconds_of(call, name)

    results = gpu.Results(path, {"environment": {"gpu": "none"}})
    gpu.measure_all(cases, 1.0, 1.0, results, clock)
    plain = [(call, name) for name in "abc" for call in ("ours", "eager")]
    compiled = [(call, name) for name in "ac" for call in ("compile", "ours")]
    assert measured == plain + compiled
    assert [len(state["rows"]) for state in states] == [0, 0, 1, 1, 2, 2, 3, 3, 3, 3]
    assert not any(state["complete"] for state in states)
    assert states[0]["environment"] == {"gpu": "none"}

    final = json.loads(path.read_text())
    assert final["complete"]
    assert [row["times_faster_than"] for row in final["rows"]] == [
        {"eager": 3.0, "compile": 1.5},
        {"eager": 3.0},
        {"eager": 3.0, "compile": 1.5},
    ]
    assert final["rows"][0] | {"times_faster_than": 0} == {
        "operator": "a",
        "shape": "1",
        "dtype": "float32",
        "microseconds": 2e6,
        "share_of_least_time": 5.0,
        "bound_by": "memory",
        "times_faster_than": 0,
    }


def test_stopped_it_leaves_what_was_measured_and_says_incomplete(gpu, cases, tmp_path):
    def clock(call, name):
        if name == "c":
            raise KeyboardInterrupt
        return seconds_of(call, name)

    results = gpu.Results(tmp_path / "results.json", {})
    with pytest.raises(KeyboardInterrupt):
        gpu.measure_all(cases, 1.0, 1.0, results, clock)
    left = json.loads((tmp_path / "results.json").read_text())
    assert [row["operator"] for row in left["rows"]] == ["a", "b"] and not left["complete"]


@pytest.mark.parametrize("failing", ["ours", "compile"])
def test_a_row_that_fails_says_so_and_the_others_follow(gpu, cases, tmp_path, failing):
    def clock(call, name):
        if (call, name) == (failing, "a"):
            raise RuntimeError("out of memory")
        return seconds_of(call, name)

    results = gpu.Results(tmp_path / "results.json", {})
    gpu.measure_all(cases, 1.0, 1.0, results, clock)
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert "RuntimeError: out of memory" in rows[0]["error"]
    assert not any("error" in row for row in rows[1:])
    lines = gpu.table(rows)
    assert len(lines) == 4 and len({len(line) for line in lines}) == 1
    assert ("out of memory" in lines[1]) == (failing == "ours")


def test_every_operator_agrees_with_its_baseline(gpu, monkeypatch):
    """On the CPU, the lightest case of each: a wrong argument must not first show on a GPU."""
    import gpu_cases

    monkeypatch.setattr(gpu_cases, "DEVICE", "cpu")
    torch.manual_seed(0)
    lightest = {}
    for case in gpu_cases.all_cases():
        cost = case.least_bytes + case.least_flops
        if cost < lightest.get(case.operator, (float("inf"), None))[0]:
            lightest[case.operator] = cost, case
    for operator, (_, case) in lightest.items():
        inputs = case.inputs()
        ours, plain = flat(case.ours(*inputs)), flat(case.baselines["eager"](*inputs))
        assert len(ours) == len(plain)
        for a, b in zip(ours, plain, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 * b.abs().max().item(), msg=operator)
    without_kernel = {"perpendicular", "reference_in_use", "use_reference"}
    assert set(led_fast.ops.__all__) - without_kernel <= {operator.split()[0] for operator in lightest}


def flat(outputs):
    return (outputs,) if isinstance(outputs, torch.Tensor) else outputs
