"""The tutorials run, in less than a minute each in their short mode, and their pages are of these very scripts."""

import os
import re
import resource
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "tutorials"
TUTORIALS = sorted(p for p in FOLDER.glob("*.py") if p.name != "page.py")
RUN = """
import runpy, sys
from pathlib import Path
page = runpy.run_path(sys.argv[1])
print(page["run"](Path(sys.argv[2]), Path(sys.argv[3])))
"""


def test_there_are_five() -> None:
    assert len(TUTORIALS) == 5


@pytest.mark.parametrize("script", TUTORIALS, ids=lambda script: script.stem)
def test_it_runs(script, tmp_path) -> None:
    command = [sys.executable, "-c", RUN, str(FOLDER / "page.py"), str(script), str(tmp_path)]
    environment = {**os.environ, "QUICK": "1", "OMP_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 60  # seconds of a core
    pictures = re.findall(r"^!\[Figure \d+\]\((.*)\)$", done.stdout, flags=re.MULTILINE)
    assert pictures and all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in pictures)


@pytest.mark.parametrize("script", TUTORIALS, ids=lambda script: script.stem)
def test_its_page_is_of_this_script(script, monkeypatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "Agg")
    tools = runpy.run_path(str(FOLDER / "page.py"))
    text = (FOLDER / f"{script.stem}.md").read_text()
    place = 0
    for cell in tools["cells"](script):
        place = text.find(tools["written"](cell), place)
        assert place >= 0, f"python docs/tutorials/page.py {script.stem}"
    for name in re.findall(r"\((\S+\.png)\)", text):
        assert (FOLDER / name).is_file()
