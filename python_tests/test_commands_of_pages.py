"""Commands in README and docs have the names and the options that `--help` lists."""

import contextlib
import io
import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from led_fast.cli import COMMANDS, main
from led_fast.reproduce import EXPERIMENTS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands(page: Path) -> list[list[str]]:
    """The arguments of every `led-fast` command in a page's blocks of shell."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), flags=re.DOTALL)
    found = re.findall(r"(?:^|&& )led-fast (.*)$", "\n".join(blocks), flags=re.MULTILINE)
    return [shlex.split(text.replace(">", " "), comments=True) for text in found]


@cache
def options(command: str) -> set[str]:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit):
        main([command, "--help"])
    return set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", printed.getvalue()))


@pytest.mark.parametrize("page", [p for p in PAGES if commands(p)], ids=lambda p: str(p.relative_to(ROOT)))
def test_commands(page) -> None:
    for name, *rest in commands(page):
        assert name in COMMANDS
        assert {part for part in rest if re.fullmatch(r"--?[a-z][a-z-]*", part)} <= options(name), name
        if name == "reproduce":
            assert rest[0] in {*EXPERIMENTS, "table2", "tables"}
