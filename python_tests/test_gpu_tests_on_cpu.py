"""The tests of the CUDA operators, run on the CPU: a mistake of their own must not first show on a GPU.

In a process that lacks what the application and the other tests need, as the machine with the GPU may.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# Packages that bench/gpu_requirements.py does not ask for.
ABSENT = "hypothesis matplotlib nflows normflows PIL pytest_benchmark rich safetensors scipy tyro zuko"
WITHOUT = f"""
import sys
sys.modules.update(dict.fromkeys({ABSENT!r}.split()))
sys.path[:] = filter(None, sys.path)  # not the folder of sources, but the installed package
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""
FILES = ["test_cuda_operators.py", "test_cuda_streams.py", "test_cuda_devices.py"]


def run(*arguments: str, **environment: str) -> str:
    command = [sys.executable, "-c", WITHOUT, "-m", "cuda", "-rN", *arguments]
    settings = {"PYTHONPATH": str(TESTS), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **environment}
    done = subprocess.run(
        command, cwd=TESTS.parent, env={**os.environ, **settings}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "choice",
    [
        # Large matrices take seconds in extended precision.
        pytest.param("not 176", id="small"),
        pytest.param("176", id="large", marks=pytest.mark.slow),
    ],
)
def test_on_the_cpu(choice):
    paths = [f"python_tests/{name}" for name in FILES]
    printed = run("-p", "cpu_stand_in", "-k", choice, *paths, LED_FAST_TEST_DEVICE="cpu")
    passed = re.search(r"(\d+) passed", printed)
    assert passed and int(passed[1]) > (100 if choice == "not 176" else 10), printed


def test_all_are_collected_without_the_packages_of_others():
    printed = run("--collect-only", *(f"python_tests/{path.name}" for path in TESTS.glob("test_cuda_*.py")))
    for name in (*FILES, "test_cuda_semantics.py"):
        assert name in printed
