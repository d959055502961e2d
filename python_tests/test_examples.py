"""Every example in README.md, docs/, examples/ and the public docstrings runs."""

import dataclasses
import doctest
import importlib
import inspect
import pkgutil
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from public_names import ROOMS, WITHOUT_ALL, public_names, with_all

import led_fast

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
INTEROP = (ROOT / "docs" / "interop.md").read_text()
_BLOCK = re.compile(r"```python\n(.*?)```", flags=re.DOTALL)
BLOCKS = _BLOCK.findall(README + INTEROP)
TOURS = sorted((ROOT / "docs" / "tours").glob("*.md"))
MODULES = [
    m.name
    for m in pkgutil.walk_packages(led_fast.__path__, "led_fast.")
    if "._C" not in m.name and "__main__" not in m.name
]


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_pages(block, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "page.md", "exec"), {})


@pytest.mark.parametrize("page", TOURS, ids=lambda page: page.stem)
def test_tours(page, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict = {"__name__": "tour"}
    for block in _BLOCK.findall(page.read_text()):  # each after those above it
        exec(compile(block, page.name, "exec"), namespace)


def test_pages_have_examples() -> None:
    assert len(TOURS) == 4
    assert all("```python" in page for page in (README, INTEROP))


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name) -> None:
    torch.manual_seed(0)  # some show a 95 % interval
    failures, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failures == 0


NEEDS_A_RUN = "takes a finished run: the tours and tutorials make one"
WHY_NOT = {  # public functions and classes without an example in their docstring
    "led_fast.cuda_module_path": "what it finds depends on the build; `python -m led_fast.info` prints it",
    "led_fast.load": NEEDS_A_RUN,
    "led_fast.training.load": NEEDS_A_RUN,
    "led_fast.training.load_model": NEEDS_A_RUN,
    "led_fast.training.read_model": "of a file that LED.save wrote, see LED.load",
    "led_fast.training.write_model": "LED.save calls it",
    "led_fast.training.train": "writes a folder; `led-fast train` in the tours, and fit has an example",
    "led_fast.training.steps_in": "measures this machine",
    "led_fast.training.measure_pace": "measures this machine",
    "led_fast.training.why_not_compile": "calls a compiler",
    "led_fast.training.World": "join_world makes one, and has an example",
    "led_fast.training.Task": "a kind of data brings one: python_tests/test_kinds.py has a whole kind",
    "led_fast.kinds.register": "python_tests/test_kinds.py registers a kind",
    "led_fast.evaluation.evaluate": NEEDS_A_RUN,
    "led_fast.evaluation.evaluate_images": NEEDS_A_RUN,
    "led_fast.evaluation.evaluate_image_flow": NEEDS_A_RUN,
    "led_fast.evaluation.evaluate_image_samples": NEEDS_A_RUN,
    "led_fast.evaluation.evaluate_table": NEEDS_A_RUN,
    "led_fast.evaluation.estimate_image_normalizer": NEEDS_A_RUN,
    "led_fast.evaluation.SampleJudge": NEEDS_A_RUN,
    "led_fast.evaluation.sample_quality": NEEDS_A_RUN,
    "led_fast.evaluation.labelled_rows": "takes a table with labels: `evaluate --anomaly` calls it",
    "led_fast.evaluation.open_features": "trains a classifier, or reads a file of weights",
    "led_fast.evaluation.plane_verdict": NEEDS_A_RUN,
    "led_fast.evaluation.report_table": NEEDS_A_RUN,
    "led_fast.evaluation.image_report_table": NEEDS_A_RUN,
    "led_fast.evaluation.table_summary": NEEDS_A_RUN,
    "led_fast.evaluation.score_images": NEEDS_A_RUN,
}


def wants_an_example(value: object) -> bool:
    """Functions and classes do; records, which functions return, protocols, aliases, constants and errors do not."""
    if inspect.isclass(value):
        record = dataclasses.is_dataclass(value) or hasattr(value, "_fields")
        return not (record or issubclass(value, BaseException) or getattr(value, "_is_protocol", False))
    return inspect.isroutine(value)


def test_every_public_name_has_an_example_or_says_why_not() -> None:
    public = {
        f"{module}.{name}": value
        for module in sorted(
            {*with_all(), *WITHOUT_ALL} - ROOMS - {"led_fast.reference"}
        )  # whose operators have
        for name, value in public_names(module).items()
        if wants_an_example(value) and name != "first_line"
    }
    without = {name for name, value in public.items() if ">>> " not in (inspect.getdoc(value) or "")}
    assert without == set(WHY_NOT)


@pytest.fixture
def run_example(tmp_path, monkeypatch, capsys) -> Callable[..., str]:
    """Runs an example, which must draw its picture, and returns what it prints."""

    def run(script: str, *options: str) -> str:
        picture = tmp_path / "picture.png"
        monkeypatch.setattr(sys, "argv", [script, *options, "--out", str(picture)])
        runpy.run_path(str(ROOT / "examples" / script), run_name="__main__")
        assert picture.read_bytes().startswith(b"\x89PNG")
        return capsys.readouterr().out

    return run


def test_custom_flow(run_example) -> None:
    script = ROOT / "examples" / "custom_flow.py"
    assert len(script.read_text().splitlines()) <= 50 and "examples/custom_flow.py" in README
    output = run_example(script.name, "--steps", "3")
    assert "training" in output and re.search(r"log α = .*, 95 % interval .* to .*", output)


FOREIGN = {
    "normflows_glow.py": ["1x1 convolutions of normflows", "3x3 CircularConv2d"],
    "zuko_soft_relu.py": ["linear maps alone", "MAF of zuko", "linear maps and soft-ReLUs"],
}


def likelihoods(output: str) -> dict[str, float]:
    """Held-out log-likelihoods by model."""
    found = re.findall(
        r"^([^,:\n]+).*: held-out log-likelihood (-?\d+\.\d+) nats", output, flags=re.MULTILINE
    )
    return {name: float(value) for name, value in found}


@pytest.mark.parametrize("script", FOREIGN)
def test_flows_of_other_libraries(script, run_example) -> None:
    assert list(likelihoods(run_example(script, "--steps", "2"))) == FOREIGN[script]
    assert script in INTEROP


@pytest.mark.slow
@pytest.mark.parametrize(("script", "at_least"), [("normflows_glow.py", 0.0), ("zuko_soft_relu.py", 0.9)])
def test_flows_of_other_libraries_learn(script, at_least, run_example) -> None:
    found = likelihoods(run_example(script))
    assert found[FOREIGN[script][-1]] - found[FOREIGN[script][0]] >= at_least


def test_figures_of_the_interop_page() -> None:
    record = (ROOT / "docs" / "results" / "interop.txt").read_text()
    assert sorted(likelihoods(record)) == sorted(name for names in FOREIGN.values() for name in names)
    for name, value in likelihoods(record).items():
        (claimed,) = re.findall(rf"^\| {re.escape(name)} \|.* (-?\d+\.\d+) \|$", INTEROP, flags=re.MULTILINE)
        assert float(claimed) == value, name
