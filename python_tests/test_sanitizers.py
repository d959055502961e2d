"""AddressSanitizer and UBSan: the kernels run in a process of their own that has them loaded."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from simt import build

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(build.asan_loaded(), reason="runs in a process with AddressSanitizer already"),
    pytest.mark.skipif(
        build.missing_requirement() is not None, reason=build.missing_requirement() or "requirements are met"
    ),
]


def run_sanitized(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs Python with AddressSanitizer loaded. Python itself leaks by design."""
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ
        | {"LD_PRELOAD": build.asan_preload(), "ASAN_OPTIONS": "detect_leaks=0", "PYTHONMALLOC": "malloc"}
        | environment,
        cwd=build.ROOT / "python_tests",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def check_tests(*files: str, **environment: str) -> None:
    """Asserts that test files run to their end, and that the sanitizers find nothing.

    The tests' own verdicts do not count, as rounding depends on the optimiser. torch.compile is left out.
    """
    options = ["-m", "pytest", "--capture=no", "-p", "no:cacheprovider", "-k", "not compile"]
    done = run_sanitized(*options, *files, **environment)
    print(done.stdout[-2000:])
    assert re.search(r"\d+ passed.* in ", done.stdout), done.stdout
    assert not re.search(r"ERROR: AddressSanitizer|runtime error:", done.stdout), done.stdout


@pytest.fixture(scope="module")
def sanitized_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with led_fast in it, whose CPU kernels are built with both sanitizers."""
    folder = tmp_path_factory.mktemp("sanitized")
    options = {"LED_FAST_SANITIZE": "ON", "LED_FAST_CUDA": "OFF", "Python_EXECUTABLE": sys.executable}
    definitions = [f"-D{name}={value}" for name, value in options.items()]
    build.run(["cmake", "-S", str(build.ROOT), "-B", str(folder / "build"), "-G", "Ninja", *definitions])
    build.run(["cmake", "--build", str(folder / "build")])
    build.run(["cmake", "--install", str(folder / "build"), "--prefix", str(folder)])
    for path in (build.ROOT / "led_fast").rglob("*.py"):
        copy = folder / path.relative_to(build.ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    return folder


OPERATORS = sorted(path.parent.name for path in build.CSRC.glob("*/cpu.cpp"))


@pytest.mark.parametrize("operator", OPERATORS)
def test_cpu_kernels_are_clean(sanitized_package, operator):
    check_tests(f"test_{operator}.py", PYTHONPATH=str(sanitized_package))


def test_the_sanitized_package_is_used(sanitized_package):
    done = run_sanitized("-c", "import led_fast; print(led_fast.__file__)", PYTHONPATH=str(sanitized_package))
    assert str(sanitized_package) in done.stdout


def test_simt_runs_are_clean():
    files = (p.name for p in (build.ROOT / "python_tests").glob("test_simt_*.py"))
    check_tests(*sorted(files))


@pytest.mark.parametrize(
    ("kernel", "finding"),
    [(12, "AddressSanitizer: heap-buffer-overflow"), (11, "AddressSanitizer"), (10, "out of bounds")],
    ids=["global", "dynamic shared", "static shared"],
)
def test_simt_runs_can_fail(kernel, finding):
    program = f"""
import torch
from simt.library import SCHEDULES, SimtLibrary
kernels = SimtLibrary("semantics", build_type="asan")
kernels.configure(SCHEDULES[0])
kernels.launch("semantics", {kernel}, 1, torch.zeros(256), torch.zeros(256))
"""
    done = run_sanitized("-c", program)
    assert done.returncode != 0 and finding in done.stdout, done.stdout
