"""Every example in README.md and in the public docstrings runs."""

import doctest
import importlib
import pkgutil
import re
import runpy
import sys
from pathlib import Path

import pytest

import led_fast

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
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


def test_custom_flow(tmp_path, monkeypatch, capsys) -> None:
    script, picture = ROOT / "examples" / "custom_flow.py", tmp_path / "spiral.png"
    assert len(script.read_text().splitlines()) <= 50 and "examples/custom_flow.py" in README
    monkeypatch.setattr(sys, "argv", [str(script), "--steps", "3", "--out", str(picture)])
    runpy.run_path(str(script), run_name="__main__")
    output = capsys.readouterr().out
    assert "training" in output and re.search(r"log α = .*, 95 % interval .* to .*", output)
    assert picture.read_bytes().startswith(b"\x89PNG")
