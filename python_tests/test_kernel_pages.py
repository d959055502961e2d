"""The kernels' pages are what docs/kernels/page.py makes of the committed results, and every operator has one."""

import re
import runpy
from pathlib import Path

import pytest

import led_fast

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(p for p in (DOCS / "kernels").glob("*.md") if p.stem != "index")
ON_ANOTHER = {"mixture_log_prob_and_score", "perpendicular"}


@pytest.fixture(scope="module")
def made(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLBACKEND", "Agg")
        yield runpy.run_path(str(DOCS / "kernels" / "page.py"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page(page, made) -> None:
    assert page.read_text() == made["filled"](page.stem), "run python docs/kernels/page.py"
    assert page.with_suffix(".png").is_file() and "<!-- measured -->\n![" in page.read_text()


def test_every_operator_has_a_page(made) -> None:
    operators = {name for name in led_fast.ops.__all__ if "reference" not in name}
    assert {page.stem for page in PAGES} == set(made["KERNELS"]) == operators - ON_ANOTHER
    index = (DOCS / "kernels" / "index.md").read_text()
    assert set(re.findall(r"\((\w+)\.md\)", index)) == operators - ON_ANOTHER
