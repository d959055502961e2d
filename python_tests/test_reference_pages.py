"""The site's reference has every public name, and its navigation every page."""

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest
from public_names import ROOMS, WITHOUT_ALL, public_names, with_all

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
DIRECTIVES = [
    name
    for page in sorted((DOCS / "reference").glob("*.md"))
    for name in re.findall(r"^::: (\S+)$", page.read_text(), flags=re.MULTILINE)
]


def resolve(path: str) -> object:
    """What a dotted path names; a module that hides behind a function of its name is found, too."""
    parts = path.split(".")
    for end in range(len(parts) - 1, 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:end]))
            for name in parts[end:]:
                found = getattr(found, name)
            return found
        except (ModuleNotFoundError, AttributeError):
            continue
    raise LookupError(path)


def test_every_directive_names_something_and_once() -> None:
    for name in DIRECTIVES:
        resolve(name)
    assert len(set(DIRECTIVES)) == len(DIRECTIVES)


@pytest.mark.parametrize("module", [*sorted(set(with_all()) - ROOMS), *WITHOUT_ALL])
def test_public_names(module) -> None:
    documented = [(name.rsplit(".", 1)[-1], resolve(name)) for name in DIRECTIVES]
    missing = [
        name
        for name, value in public_names(module).items()
        if not isinstance(value, ModuleType)
        and name != "first_line"  # of an error of others: for our own messages
        and not any(name == called and value is found for called, found in documented)
    ]
    assert not missing


def test_public_functions_and_classes_say_what_they_are() -> None:
    for name in DIRECTIVES:
        value = resolve(name)
        assert not (inspect.isclass(value) or inspect.isroutine(value)) or inspect.getdoc(value), name


def test_every_page_is_in_the_navigation() -> None:
    nav = (ROOT / "mkdocs.yml").read_text().split("\nnav:")[1]
    listed = set(re.findall(r"[\w/]+\.md", nav))
    pages = {str(p.relative_to(DOCS)) for p in DOCS.rglob("*.md")} | {"contributing.md", "changelog.md"}
    assert listed == pages


@pytest.mark.parametrize(
    "page", [DOCS / "contribute.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name
)
def test_files_that_contributors_are_told_of_exist(page) -> None:
    named = re.findall(r"`((?:\.?\w+/)+[\w.]*)`", page.read_text())
    missing = [
        path for path in named if not (ROOT / path).exists() and not (ROOT / "led_fast" / path).exists()
    ]
    assert named and not missing
