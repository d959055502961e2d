"""Runs tutorials and writes their pages: `python docs/tutorials/page.py [NAME ...]`, all of them where none is named.

A tutorial is a script in the percent format of jupytext, which opens as a notebook, too: cells begin with `# %%`, those
of prose with `# %% [markdown]`. Its page has every cell, what the cell printed, and its figures. With QUICK=1 in the
environment a tutorial takes seconds and shows nothing but that it runs.
"""

import contextlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

FOLDER = Path(__file__).parent


class Cell(NamedTuple):
    """A cell of a tutorial."""

    is_code: bool
    text: str


def cells(script: Path) -> Iterator[Cell]:
    """The cells of a tutorial, in their order."""
    for part in ("\n" + script.read_text()).split("\n# %%")[1:]:
        mark, _, text = part.partition("\n")
        if mark.strip() == "[markdown]":
            text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in text.splitlines())
        yield Cell(not mark.strip(), text.strip())


def written(cell: Cell) -> str:
    """A cell as its page has it, without what it printed."""
    return f"```python\n{cell.text}\n```" if cell.is_code else cell.text


def run(script: Path, pictures: Path) -> str:
    """Runs a tutorial; returns its page, and writes its figures into a folder."""
    blocks, namespace, count = [], {"__name__": "__main__"}, 0
    for cell in cells(script):
        blocks.append(written(cell))
        if not cell.is_code:
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(cell.text, script.name, "exec"), namespace)
        if printed.getvalue():
            blocks.append(f"```text\n{printed.getvalue().rstrip()}\n```")
        for number in plt.get_fignums():
            count += 1
            picture = pictures / f"{script.stem}-{count}.png"
            plt.figure(number).savefig(picture, dpi=110)
            blocks.append(f"![Figure {count}]({picture.name})")
        plt.close("all")
    source = f"This page is [{script.name}]({script.name}), run."
    return "\n\n".join([blocks[0], source, *blocks[1:]]) + "\n"


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(p.stem for p in FOLDER.glob("*.py") if p != Path(__file__)):
        page = run(FOLDER / f"{name}.py", FOLDER)
        (FOLDER / f"{name}.md").write_text(page)
