"""docs/gpu.md is what bench/gpu_floor.py makes of the committed counts of instructions."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_page(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "bench"), *sys.path])
    import gpu_floor

    assert (ROOT / "docs" / "gpu.md").read_text() == gpu_floor.page()
