"""docs/speed.md and README's table of speeds are what bench/page.py makes of the committed results."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def written():
    return runpy.run_path(str(ROOT / "bench" / "page.py"))


def test_page(written):
    assert (ROOT / "docs" / "speed.md").read_text() == written["page"]()


def test_readme(written):
    text = (ROOT / "README.md").read_text()
    assert "<!-- speed -->" in text
    assert text == written["readme"]()
