"""What a release says of itself agrees: version, dates, change log, citation, workflows."""

import re
from pathlib import Path

import pytest

import led_fast

tomllib = pytest.importorskip("tomllib")  # of Python 3.11
ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CHANGES = (ROOT / "CHANGELOG.md").read_text()
CITATION = (ROOT / "CITATION.cff").read_text()
SECTIONS = ["Added", "Changed", "Deprecated", "Removed", "Fixed"]
VERSIONS = re.findall(r"^## (.*)\n((?:.|\n)*?)(?=\n## |\Z)", CHANGES, flags=re.MULTILINE)


def test_one_version() -> None:
    version = PROJECT["version"]
    assert led_fast.__version__ == version and f"\nversion: {version}\n" in CITATION
    newest = VERSIONS[0][0]
    number = version.split(".dev")[0]
    assert (
        newest == f"{number}, unreleased" if ".dev" in version else re.fullmatch(rf"{number}, [\d-]+", newest)
    )


def test_versions_are_dated_and_newest_first() -> None:
    titles = [title for title, _ in VERSIONS]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+, \d{4}-\d\d-\d\d", title) for title in titles[1:])
    numbers = [tuple(map(int, title.split(",")[0].split("."))) for title in titles]
    assert numbers == sorted(numbers, reverse=True)


@pytest.mark.parametrize("title, text", VERSIONS, ids=[title for title, _ in VERSIONS])
def test_sections(title, text) -> None:
    """Every line stands in a section, and sections in their order."""
    sections = re.findall(r"^### (.*)$", text, flags=re.MULTILINE)
    assert sections == [name for name in SECTIONS if name in sections]
    assert text.strip().startswith("### ")
    assert all(re.match(r"(- |  |### |$)", line) for line in text.splitlines())


def test_citation() -> None:
    assert "cff-version: 1.2.0" in CITATION and f"license: {PROJECT['license']}" in CITATION
    assert re.search(r'^date-released: "\d{4}-\d\d-\d\d"$', CITATION, flags=re.MULTILINE)


def test_workflows_try_the_oldest_python_and_torch() -> None:
    text = (ROOT / ".github" / "workflows" / "tests.yml").read_text()
    python = PROJECT["requires-python"].removeprefix(">=")
    (torch,) = [d.removeprefix("torch>=") for d in PROJECT["dependencies"] if d.startswith("torch>=")]
    assert f'python: "{python}", torch: "{torch}.0"' in text
