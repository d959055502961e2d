"""Writes docs/tables.md from tables.json beside this script: `python docs/results/tables/page.py`.

The file comes from `led-fast reproduce tables --data DIR --out docs/results/tables`; of its folder only tables.json is
kept in the repository.
"""

from pathlib import Path

from led_fast.reproduce.content import read_content
from led_fast.reproduce.tables.page import markdown

HERE = Path(__file__).parent

INTRODUCTION = """# Results on tables

LED beside other density models on tables of any number of columns. All of it is the output of one command, named at the
end; what it measured is in [results/tables/tables.json](results/tables/tables.json), seeds, settings and versions
included. `python docs/results/tables/page.py` makes this page of that file.

LED here is what `led-fast train table.csv` trains: each column is made normal by its own histogram, a coupling flow
learns by maximum likelihood how they depend on each other, and a perceptron then tilts the flow's density by Eq. 3, as
far as at least a tenth of the importance weights stays effective. Validation rows choose among averages of weights.
"""


def main() -> None:
    (HERE.parents[1] / "tables.md").write_text(page(HERE / "tables.json"))


def page(file: Path) -> str:
    """The whole page of a result file."""
    content = read_content(file)
    if content["quick"]:
        raise ValueError(f"{file}: is of a quick run, which is no result")
    cells = content["cells"].values()
    made = sorted({f"version {c['version']}, torch {c['torch']}, {c['machine']}" for c in cells})
    return "\n".join(
        [INTRODUCTION, markdown(content), f"`{content['command']}`: {'; '.join(made)}, one thread a fit.\n"]
    )


if __name__ == "__main__":
    main()
