"""Every example in README.md and in the public docstrings runs."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import led_fast

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
MODULES = [
    m.name
    for m in pkgutil.walk_packages(led_fast.__path__, "led_fast.")
    if "._C" not in m.name and "__main__" not in m.name
]


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_readme(block, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})


def test_readme_has_examples() -> None:
    assert BLOCKS


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name) -> None:
    failures, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failures == 0
