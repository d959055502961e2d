"""AddressSanitizer and UBSan: the kernels run in a process of their own that has them loaded."""

import os
import subprocess
import sys

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
