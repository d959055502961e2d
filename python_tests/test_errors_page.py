"""docs/errors.md and docs/install.md quote messages that the sources hold."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"^\| `([^`]+)`", flags=re.MULTILINE)
FOREIGN = {"undefined symbol"}  # the dynamic loader's
MESSAGES = [
    message
    for page in ("errors.md", "install.md")
    for message in ROW.findall((ROOT / "docs" / page).read_text())
    if message not in FOREIGN and not re.fullmatch(r"[A-Z_]+|pip install .*", message)
]


def text_of(node: ast.expr) -> str:
    """A string with … for what is put in."""
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(value) for value in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else "…"


SOURCES = [
    text_of(node)
    for path in [*(ROOT / "led_fast").rglob("*.py"), ROOT / "setup.py"]
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.Constant | ast.JoinedStr)
]


@pytest.mark.parametrize("message", MESSAGES)
def test_message(message) -> None:
    """All pieces between the gaps are in one string of the sources, in order."""
    pattern = re.compile(".*".join(re.escape(piece) for piece in message.split("…")), flags=re.DOTALL)
    assert any(pattern.search(text) for text in SOURCES)
