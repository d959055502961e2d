"""docs/gpu.md is what bench/gpu_floor.py makes of the committed counts of instructions."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_page(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "bench"), *sys.path])
    import gpu_floor

    assert (ROOT / "docs" / "gpu.md").read_text() == gpu_floor.page()


def test_shares_are_possible(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "bench"), *sys.path])
    import gpu_cases
    import gpu_code

    for row in gpu_code.read()["rows"]:
        assert row["always"] <= row["instructions"]
        assert row.get("multiply_adds", 0) <= row["instructions"]
    assert all(case.least_bytes > 0 for case in gpu_cases.all_cases())
