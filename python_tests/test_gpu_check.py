"""bench/gpu_check.sh on machines that are not there: stubs of a driver, compilers, torch, pytest and the benchmark."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import venv
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "bench"
PROGRAMS = {
    "nvidia-smi": 'echo "${DRIVER-580.65.06}"',
    "nvcc": """case $1 in
      --version) echo "Cuda compilation tools, release ${TOOLKIT-13.0}, V13.0.88" ;;
      *) echo compute_80; echo "compute_${NEWEST-90}" ;;
    esac""",
    "cmake": "echo cmake version 3.28.3",
    "ninja": "echo 1.11.1",
    "c++": "true",
    # Runs what follows its own options.
    "compute-sanitizer": """echo "sanitizer $2"
    [ "$1" = --version ] && { echo Version 2025.3.0; exit; }
    while ! [ -x "$1" ]; do shift; done
    "$@" || exit
    echo "========= ${VERDICT-ERROR SUMMARY: 0 errors}"
    ! [ "${HAZARD-}" = yes ]""",
}
TORCH = """
import os
__version__ = os.environ.get("TORCH", "2.11.0+cu130")
class version:
    cuda = os.environ.get("TORCH_CUDA", "13.0") or None
class cuda:
    is_available = staticmethod(lambda: os.environ.get("GPU", "yes") == "yes")
    get_device_capability = staticmethod(lambda: (9, 0))
    get_device_name = staticmethod(lambda: "NVIDIA H100 80GB HBM3")
"""
# Does to the step named in the JUnit file what $FAKE tells: pass, fail, none, skip, crash or sleep.
PYTEST = """
import json, os, sys, time
from pathlib import Path
junit = next(Path(a.split("=", 1)[1]) for a in sys.argv if a.startswith("--junitxml="))
what = json.loads(os.environ.get("FAKE", "{}")).get(junit.stem, "pass")
case = '<testcase name="a"/>'
cases = {"pass": 2 * case, "fail": case + '<testcase name="b"><failure message="no"/></testcase>',
         "skip": '<testcase name="a"><skipped message="needs two NVIDIA GPUs"/></testcase>'}
if what == "sleep":
    Path("sleeping").write_text(str(os.getpid()))
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        what = "pass"
if what != "crash":
    junit.write_text(f"<testsuites><testsuite>{cases.get(what, '')}</testsuite></testsuites>")
print("pytest", *sys.argv[1:])
sys.exit({"pass": 0, "skip": 0, "fail": 1, "none": 5, "crash": 139}[what])
"""
PIP = 'import os, sys; print("pip", *sys.argv[1:]); sys.exit(os.environ.get("BUILD") == "fail")'
BENCHMARK = """
import json, os, sys, time
from pathlib import Path
rows = [{"operator": "a"}, {"operator": "b"}]
if os.environ.get("ROWS") == "wrong":
    rows[1]["error"] = "out of memory"
Path(sys.argv[1]).write_text(json.dumps({"complete": os.environ.get("ROWS") != "slow", "rows": rows}))
if os.environ.get("ROWS") == "slow":
    time.sleep(60)
"""


class Machine:
    """A temporary checkout with a Python that has stubs alone, and stubs on its PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, folder / "out"
        shutil.copytree(BENCH, folder / "bench", ignore=lambda *_: {"results", "__pycache__"})
        (folder / "bench" / "gpu_benchmark.py").write_text(BENCHMARK)
        (folder / "python_tests").mkdir()
        for name in ("test_cuda_operators.py", "test_scipy.py"):
            (folder / "python_tests" / name).touch()
        venv.create(folder / "venv", symlinks=True)
        self.python = folder / "venv" / "bin" / "python"
        (self.packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
        for name, code in {"torch": TORCH, "triton": "", "pytest": "", "pip": ""}.items():
            (self.packages / name).mkdir()
            (self.packages / name / "__init__.py").write_text(code)
        (self.packages / "pytest" / "__main__.py").write_text(PYTEST)
        (self.packages / "pip" / "__main__.py").write_text(PIP)
        for name in ("setuptools", "pip", "pybind11", "pytest", "numpy"):
            self.have(name, "100.0")  # less than 8, were it no number
        (folder / "bin").mkdir()
        for name, code in PROGRAMS.items():
            program = folder / "bin" / name
            program.write_text(f"#!/bin/sh\n{code}\n")
            program.chmod(0o755)
        for name in ("bash", "dirname", "git"):
            (folder / "bin" / name).symlink_to(shutil.which(name))

    def have(self, package: str, version: str) -> None:
        """Installs a package's metadata."""
        metadata = self.packages / f"{package}-0.dist-info" / "METADATA"
        metadata.parent.mkdir(exist_ok=True)
        metadata.write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")

    def have_not(self, *names: str) -> None:
        """Removes packages and programs."""
        for name in names:
            shutil.rmtree(self.packages / name, ignore_errors=True)
            shutil.rmtree(self.packages / f"{name}-0.dist-info", ignore_errors=True)
            (self.folder / "bin" / name).unlink(missing_ok=True)

    def start(self, *command: str, **settings: str) -> subprocess.Popen[str]:
        paths = {"PATH": str(self.folder / "bin"), "PYTHON": str(self.python)}
        return subprocess.Popen(
            command or (str(self.folder / "bench" / "gpu_check.sh"), str(self.out)),
            env={**paths, **settings},
            cwd="/",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def check(self, *command: str, **settings: str) -> tuple[int, str]:
        process = self.start(*command, **settings)
        printed = process.communicate(timeout=30)[0]
        return process.returncode, printed

    def summary(self) -> dict[str, tuple[str, str]]:
        """Result and note of each step."""
        saved = json.loads((self.out / "summary.json").read_text())
        return {step["step"]: (step["result"], step["note"]) for step in saved["steps"]}


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


STEPS = ["build", "tests", "memcheck", "racecheck", "synccheck", "benchmark"]


def test_everything_there_and_right(machine):
    code, printed = machine.check()
    assert code == 0, printed
    assert "all steps passed" in printed
    assert list(machine.summary()) == STEPS
    assert {result for result, _ in machine.summary().values()} == {"passed"}
    assert "pytest -m cuda --durations=5" in (machine.out / "tests.txt").read_text()
    # The CUDA tests by name: collecting others imports what a bare machine lacks.
    assert "test_cuda_operators.py" in printed and "test_scipy.py" not in printed
    assert "sanitizer memcheck" in (machine.out / "memcheck.txt").read_text()
    environment = json.loads((machine.out / "summary.json").read_text())["environment"]
    assert environment["driver"] == "580.65.06" and environment["gpu"].startswith("NVIDIA H100")
    assert "pip install --no-index --no-deps --no-build-isolation" in printed
    assert "CMAKE_CUDA_ARCHITECTURES=90" in printed


def test_all_that_is_missing_is_said_at_once_with_how_to_get_it(machine):
    machine.have_not("pybind11", "ninja", "triton")
    machine.have("pytest", "7.4")
    code, printed = machine.check(TORCH="2.10.1+cu130", DRIVER="550.54.15", NEWEST="89")
    assert code == 2
    for sentence in (
        "pybind11 >= 2.13, got none",
        "ninja >= 1.10, got none",
        "pytest >= 8, got 7.4",
        "triton, which torch.compile needs",
        "torch >= 2.11, got 2.10.1+cu130",
        "an nvcc that knows compute_90, this GPU",
        "an NVIDIA driver >= 580, which nvcc of CUDA 13.0 needs, got 550.54.15",
        "-m pip install 'pybind11>=2.13' 'pytest>=8' 'ninja>=1.10'",
        "--find-links wheels",
    ):
        assert sentence in printed, printed
    assert not machine.out.exists()


def test_driver_too_old_for_torch(machine):
    code, printed = machine.check(DRIVER="550.54.15", GPU="no")
    assert code == 2
    assert "an NVIDIA driver >= 580, which torch of CUDA 13.0 needs, got 550.54.15" in printed


def test_a_minor_version_ahead_of_the_driver_is_fine(machine):
    assert machine.check(DRIVER="525.60.13", TOOLKIT="12.9", TORCH_CUDA="12.8")[0] == 0


@pytest.mark.parametrize(
    ("absent", "settings", "sentence"),
    [
        (["nvidia-smi"], {"GPU": "no"}, "an NVIDIA GPU with its driver: nvidia-smi finds none"),
        ([], {"GPU": "no"}, "a GPU that torch sees: nvidia-smi finds driver 580.65.06"),
        ([], {"TORCH_CUDA": ""}, "torch built for CUDA, got 2.11.0+cu130"),
        (["torch"], {}, "torch >= 2.11: install a CUDA build"),
    ],
)
def test_without_a_gpu_or_its_torch(machine, absent, settings, sentence):
    machine.have_not(*absent)
    code, printed = machine.check(**settings)
    assert code == 2 and sentence in printed, printed


def test_nvidia_smi_is_not_needed(machine):
    machine.have_not("nvidia-smi")
    code, printed = machine.check()
    assert code == 0 and "driver unknown" in printed


def test_no_python(machine):
    code, printed = machine.check(PYTHON="no-such-python")
    assert code == 2 and "no no-such-python here" in printed


def test_without_sanitizer_nothing_says_all_passed(machine):
    machine.have_not("compute-sanitizer")
    code, printed = machine.check()
    assert code == 3
    assert "all steps passed" not in printed
    for tool in ("memcheck", "racecheck", "synccheck"):
        assert machine.summary()[tool] == ("left out", "compute-sanitizer is not installed")
    assert machine.summary()["benchmark"][0] == "passed"


@pytest.mark.parametrize(
    ("what", "note"),
    [
        ("fail", "exit code 1; 1 failed; 1 tests passed"),
        ("none", "exit code 5; not one test ran; 0 tests passed"),
        ("skip", "not one test ran; 0 tests passed, 1 skipped (needs two NVIDIA GPUs)"),
        ("crash", "exit code 139; no test results were written"),
    ],
)
def test_tests_that_fail_or_do_not_run(machine, what, note):
    code, printed = machine.check(FAKE=json.dumps({"tests": what, "racecheck": what}))
    assert code == 1 and "NOT passed" in printed
    assert machine.summary()["tests"] == machine.summary()["racecheck"] == ("FAILED", note)
    assert machine.summary()["memcheck"][0] == machine.summary()["benchmark"][0] == "passed"


def test_results_of_an_earlier_run_do_not_count(machine):
    assert machine.check()[0] == 0
    assert machine.check(FAKE=json.dumps({"tests": "crash"}))[0] == 1
    assert "no test results" in machine.summary()["tests"][1]


def test_a_hazard_fails_though_its_tests_pass(machine):
    code, _ = machine.check(HAZARD="yes")
    assert code == 1
    assert machine.summary()["memcheck"] == ("FAILED", "exit code 1; 2 tests passed")


def test_a_sanitizer_that_saw_nothing_has_not_passed(machine):
    code, _ = machine.check(VERDICT="Error: Target application terminated before first instrumented API call")
    assert code == 1
    assert machine.summary()["memcheck"] == (
        "FAILED",
        "it does not say that it found nothing; 2 tests passed",
    )


def test_after_a_failed_build_nothing_is_reached(machine):
    code, _ = machine.check(BUILD="fail")
    assert code == 1
    assert machine.summary() == {
        "build": ("FAILED", "exit code 1"),
        **dict.fromkeys(STEPS[1:], ("not reached", "the build failed")),
    }


def test_rows_with_errors_fail_the_benchmark(machine):
    assert machine.check(ROWS="wrong")[0] == 1
    assert machine.summary()["benchmark"][1].startswith("1 rows with errors; 1 rows in ")


def test_a_benchmark_out_of_time_keeps_its_rows(machine):
    code, printed = machine.check(
        str(machine.python),
        "-c",
        f"""
import sys
from dataclasses import replace
sys.path.insert(0, {str(machine.folder / "bench")!r})
import gpu_check
steps = gpu_check.steps
gpu_check.REQUIREMENTS_SECONDS = 1
gpu_check.steps = lambda *a: [replace(s, seconds=1) for s in steps(*a) if s.name in ("build", "benchmark")]
sys.exit(gpu_check.main([{str(machine.out)!r}]))
""",
        ROWS="slow",
    )
    assert code == 1, printed
    result, note = machine.summary()["benchmark"]
    assert result == "FAILED"
    assert note.startswith("stopped at its time limit; results are incomplete; 2 rows in ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_a_summary_and_no_process(machine, number):
    process = machine.start(FAKE=json.dumps({"tests": "sleep"}))
    sleeping, patience = machine.folder / "sleeping", time.monotonic() + 20
    while not (sleeping.exists() and sleeping.read_text()):
        assert time.monotonic() < patience
        time.sleep(0.02)
    process.send_signal(number)
    printed = process.communicate(timeout=20)[0]
    assert process.returncode == 1 and "NOT passed" in printed
    assert machine.summary()["build"][0] == "passed"
    assert machine.summary()["tests"] == ("FAILED", "interrupted; 2 tests passed")
    assert machine.summary()["benchmark"] == ("not reached", "interrupted")
    with pytest.raises(ProcessLookupError):
        os.kill(int(sleeping.read_text()), 0)


def test_dry_run_needs_nothing_and_the_time_limits_add_up(tmp_path):
    script = BENCH / "gpu_check.sh"
    done = subprocess.run(
        [script, "--dry-run", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHON": sys.executable},
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("== ")]
    assert [line.split()[1] for line in lines] == STEPS
    assert not (tmp_path / "out").exists()
    sys.path.insert(0, str(BENCH))
    import gpu_check

    limits = [int(line.split("(")[1].split()[0]) for line in lines]
    assert gpu_check.REQUIREMENTS_SECONDS + sum(limits) + gpu_check.GRACE_SECONDS <= 8 * 60


@pytest.mark.parametrize("arguments", [["--fast"], ["a", "b"]])
def test_usage(arguments):
    script = BENCH / "gpu_check.sh"
    done = subprocess.run([script, *arguments], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("usage: ")


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck")
def test_shellcheck():
    subprocess.run(["shellcheck", BENCH / "gpu_check.sh"], check=True)
