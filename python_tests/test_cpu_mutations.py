"""Mutation test of the CPU kernels: each formula made wrong in turn must fail the operator's own tests."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cpu_mutants import MUTANTS
from simt import build

import led_fast

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        build.missing_requirement() is not None, reason=build.missing_requirement() or "requirements are met"
    ),
]

CASES = [
    (operator, file, right, wrong)
    for operator, files in MUTANTS.items()
    for file, mutants in files.items()
    for right, wrong in mutants
]


class MutableBuild:
    """A copy of the sources, its build for the CPU, and a led_fast package made of both."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.sources, self.package = folder, folder / "csrc", folder / "package"
        shutil.copytree(build.CSRC, self.sources)
        shutil.copy(build.ROOT / "CMakeLists.txt", folder)
        level = re.search(r"x86-64-v\d", led_fast._C.build_info()["cpu_instruction_set"])
        if level:  # for this machine's instruction set alone: a third of the time
            multiversion = self.sources / "common/multiversion.h"
            one, count = re.subn(
                r"target_clones\(.*?\)", f'target("arch={level[0]}")', multiversion.read_text()
            )
            assert count == 1
            multiversion.write_text(one)
        ignore = shutil.ignore_patterns("*.so", "__pycache__")
        shutil.copytree(build.ROOT / "led_fast", self.package / "led_fast", ignore=ignore)
        options = {"LED_FAST_CUDA": "OFF", "Python_EXECUTABLE": sys.executable}
        definitions = [f"-D{name}={value}" for name, value in options.items()]
        build.run(["cmake", "-S", str(folder), "-B", str(folder / "build"), "-G", "Ninja", *definitions])

    def test(self, operator: str) -> subprocess.CompletedProcess[str]:
        """Builds, and runs the operator's tests."""
        build.run(["cmake", "--build", str(self.folder / "build")])
        build.run(["cmake", "--install", str(self.folder / "build"), "--prefix", str(self.package)])
        select = [
            "-k",
            "not compile and not opcheck and not threads and not trace",
        ]  # slow, and about other things
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *select, f"test_{operator}.py"],
            cwd=build.ROOT / "python_tests",
            env=os.environ | {"PYTHONPATH": str(self.package)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@pytest.fixture(scope="module")
def mutable(tmp_path_factory: pytest.TempPathFactory) -> MutableBuild:
    return MutableBuild(tmp_path_factory.mktemp("mutants"))


@pytest.mark.parametrize("operator", MUTANTS)
def test_the_right_sources_pass(mutable, operator) -> None:
    done = mutable.test(operator)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("operator", "file", "right", "wrong"),
    CASES,
    ids=[f"{operator}: {right}" for operator, _, right, _ in CASES],
)
def test_a_wrong_formula_fails(mutable, operator, file, right, wrong) -> None:
    path = mutable.sources / file
    text = path.read_text()
    assert text.count(right) == 1, f"{file} must hold this once: {right}"
    path.write_text(text.replace(right, wrong))
    try:
        done = mutable.test(operator)
    finally:
        path.write_text(text)
    assert done.returncode == 1, f"not caught\n{done.stdout}"
