"""What ``bench/gpu_check.sh`` needs of a machine: everything that is missing, each with how to get it.

``python bench/gpu_requirements.py`` prints a JSON object: `missing`, sentences; `packages`, what to give pip;
`architecture`, that of the first GPU, as CMake calls it; `environment`, versions. Only the standard library is needed.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path

OLDEST_PYTHON = (3, 10)
# What pip installs, oldest version. CMake and ninja are programs; their wheels put them beside Python.
PACKAGES = {"setuptools": "77", "pip": "23", "pybind11": "2.13", "pytest": "8", "numpy": "1.24"}
PROGRAMS = {"cmake": "3.24", "ninja": "1.10"}
# By a toolkit's major version: this driver or a newer one runs all its minor versions (CUDA's compatibility guide).
OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}
OLDEST_TORCH = "2.11"


@dataclass
class Report:
    """What was found."""

    missing: list[str] = field(default_factory=list)
    packages: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    architecture: str = ""


def numbers(version: str) -> tuple[int, ...]:
    """`2.11.0+cu130` as (2, 11, 0)."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()


def output(*command: str) -> str:
    """What a program prints, nothing where it is not there or fails."""
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def check_python(report: Report) -> None:
    report.environment["python"] = platform.python_version()
    if sys.version_info < OLDEST_PYTHON:
        report.missing.append(f"Python >= 3.10, got {platform.python_version()}: set PYTHON to a newer one")
    # For our modules, and for what torch.compile builds.
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.is_file():
        report.missing.append(
            f"Python's headers ({header}): install python{sys.version_info[0]}.{sys.version_info[1]}-dev"
        )


def check_packages(report: Report) -> None:
    for name, oldest in PACKAGES.items():
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found = ""
        _check_version(report, name, oldest, found)
    for name, oldest in PROGRAMS.items():
        _check_version(report, name, oldest, _last_number(output(name, "--version").split("\n")[0]))


def _check_version(report: Report, name: str, oldest: str, found: str) -> None:
    if numbers(found) < numbers(oldest):
        report.missing.append(f"{name} >= {oldest}, got {found or 'none'}: with pip, see below")
        report.packages.append(f"{name}>={oldest}")


def _last_number(text: str) -> str:
    found = re.findall(r"\d+(?:\.\d+)+", text)
    return found[-1] if found else ""


def find_nvcc() -> str | None:
    """The one that setup.py will call."""
    if home := os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH"):
        return shutil.which("nvcc", path=f"{home}/bin")
    return shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")


def check_compilers(report: Report) -> str:
    """Returns nvcc's version."""
    if not (shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")):
        report.missing.append("a C++ compiler with C++17: install g++")
    nvcc = find_nvcc()
    if nvcc is None:
        report.missing.append(
            "nvcc, of a CUDA toolkit of the driver's major version or an older one: install the toolkit "
            "and put its bin folder on PATH"
        )
        return ""
    found = re.search(r"release (\d+\.\d+)", output(nvcc, "--version"))
    report.environment["nvcc"] = found[1] if found else "unknown"
    known = output(nvcc, "--list-gpu-arch").split()
    if report.architecture and known and f"compute_{report.architecture}" not in known:
        report.missing.append(
            f"an nvcc that knows compute_{report.architecture}, this GPU; {nvcc} of CUDA "
            f"{report.environment['nvcc']} does not: install a newer CUDA toolkit"
        )
    return found[1] if found else ""


def check_torch(report: Report, driver: str) -> None:
    """torch, and the GPU that it sees."""
    how = "install a CUDA build of torch, see pytorch.org/get-started"
    if importlib.util.find_spec("torch") is None:
        report.missing.append(f"torch >= {OLDEST_TORCH}: {how}")
        return
    import torch

    toolkit = torch.version.cuda
    report.environment |= {"torch": torch.__version__, "torch's CUDA": str(toolkit)}
    if numbers(torch.__version__) < numbers(OLDEST_TORCH):
        report.missing.append(f"torch >= {OLDEST_TORCH}, got {torch.__version__}: {how}")
    if toolkit is None:
        report.missing.append(f"torch built for CUDA, got {torch.__version__}: {how}")
    elif torch.cuda.is_available():
        report.architecture = "{}{}".format(*torch.cuda.get_device_capability())
        report.environment["gpu"] = torch.cuda.get_device_name()
        if importlib.util.find_spec("triton") is None:
            report.missing.append(
                "triton, which torch.compile needs: with pip, in the version that torch names"
            )
    elif too_old(driver, toolkit):
        report.missing.append(_driver_sentence(driver, toolkit, "torch"))
    elif driver:
        report.missing.append(
            f"a GPU that torch sees: nvidia-smi finds driver {driver}, but torch.cuda.is_available() is False; "
            "look at CUDA_VISIBLE_DEVICES and, in a container, at its access to the GPU"
        )


def too_old(driver: str, toolkit: str) -> bool:
    oldest = OLDEST_DRIVER.get(numbers(toolkit)[0]) if numbers(toolkit) else None
    return bool(driver and oldest) and numbers(driver)[:1] < (oldest,)


def _driver_sentence(driver: str, toolkit: str, what: str) -> str:
    oldest = OLDEST_DRIVER[numbers(toolkit)[0]]
    return (
        f"an NVIDIA driver >= {oldest}, which {what} of CUDA {toolkit} needs, got {driver}: "
        f"update the driver, or install {what} for an older CUDA"
    )


def check() -> Report:
    """Everything, cheap things first."""
    report = Report()
    smi = output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0")
    driver = smi.split("\n")[0].strip() if numbers(smi) else ""
    report.environment["driver"] = driver or "unknown"
    check_python(report)
    check_packages(report)
    check_torch(report, driver)
    if not driver and not report.architecture:  # without nvidia-smi torch may see the GPU all the same
        report.missing.append("an NVIDIA GPU with its driver: nvidia-smi finds none")
    toolkit = check_compilers(report)
    if too_old(driver, toolkit):
        report.missing.append(_driver_sentence(driver, toolkit, "nvcc"))
    report.environment["compute-sanitizer"] = _last_number(output("compute-sanitizer", "--version")) or "none"
    commit = output("git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD")
    report.environment["commit"] = commit or "unknown"
    return report


def how_to_get(packages: list[str]) -> list[str]:
    """pip's commands, with the internet and without."""
    if not packages:
        return []
    named = " ".join(f"'{package}'" for package in packages)
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    machine = platform.machine()
    return [
        "With the internet:",
        f"  {sys.executable} -m pip install {named}",
        "Without: on any machine that has it,",
        f"  pip download --dest wheels --only-binary=:all: --python-version {python} "
        f"--platform manylinux_2_28_{machine} --platform manylinux2014_{machine} {named}",
        "copy the folder wheels here, and",
        f"  {sys.executable} -m pip install --no-index --find-links wheels {named}",
    ]


if __name__ == "__main__":
    found = check()
    print(json.dumps(vars(found)))
