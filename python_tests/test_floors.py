"""The house has floors (CONTRIBUTING.md): no module imports a higher one, and operators know nothing of LED."""

import ast
from pathlib import Path

import pytest

import led_fast

PACKAGE = Path(led_fast.__file__).parent
FLOORS = [
    {
        "ops",
        "reference",
        "compatibility",
        "errors",
        "files",
        "gpu",
        "provenance",
        "random_state",
        "ranges",
        "surroundings",
    },
    {"nn", "flows", "density", "models"},
    {
        "data",
        "estimator",
        "kinds",
        "training",
        "evaluation",
        "figures",
        "reproduce",
        "cli",
        "info",
        "terminal",
    },
]
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}
ORDER = ["ops", "nn", "flows", "density"]  # within the lower two floors, each imports those before it alone


def imported(path: Path) -> set[str]:
    """The top-level parts of led_fast that a module imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "led_fast":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("led_fast.")}
    return found


MODULES = [p for p in PACKAGE.rglob("*.py") if p.parent != PACKAGE or p.stem in FLOOR]


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_part_of_the_package_has_a_floor():
    parts = {part_of(p) for p in PACKAGE.rglob("*.py")} - {"__init__", "__main__"}
    assert parts == set(FLOOR)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_module_imports_a_higher_floor(path):
    here = part_of(path)
    higher = {name for name in imported(path) & set(FLOOR) if FLOOR[name] > FLOOR[here]}
    assert not higher
    if here in ORDER:
        assert not imported(path) & set(ORDER[ORDER.index(here) + 1 :])
