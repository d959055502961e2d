"""AddressSanitizer and UBSan: the kernels run in a process of their own that has them loaded."""

import os
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
    # Not asked here: code of torch.compile, and rounding, which depends on the optimiser.
    done = run_sanitized(
        "-m", "pytest", "-p", "no:cacheprovider", "-k", "not compile and not accurate", f"test_{operator}.py",
        PYTHONPATH=str(sanitized_package),
    )  # fmt: skip
    print(done.stdout[-2000:])
    assert done.returncode == 0, done.stdout


def test_the_sanitized_package_is_used(sanitized_package):
    done = run_sanitized("-c", "import led_fast; print(led_fast.__file__)", PYTHONPATH=str(sanitized_package))
    assert str(sanitized_package) in done.stdout


def test_simt_runs_are_clean():
    files = (p.name for p in (build.ROOT / "python_tests").glob("test_simt_*.py"))
    done = run_sanitized("-m", "pytest", "-p", "no:cacheprovider", *sorted(files))
    print(done.stdout[-2000:])
    assert done.returncode == 0, done.stdout


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
