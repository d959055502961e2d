"""pip's entry: finds torch's headers, nvcc and ninja, then lets CMake build (CMakeLists.txt is the build definition).

Environment variables: LED_FAST_CUDA=auto|0|1, CUDA_HOME, CMAKE_CUDA_ARCHITECTURES, LED_FAST_TORCH_INCLUDE, MAX_JOBS.
"""

import os
import re
import shutil
import site
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
OLDEST_TORCH = (2, 11)


def torch_version(include: Path) -> tuple[int, ...]:
    header = include / "torch/headeronly/version.h"
    text = header.read_text() if header.is_file() else ""
    return tuple(int(number) for number in re.findall(r"define TORCH_VERSION_(?:MAJOR|MINOR) (\d+)", text))


def find_torch_include() -> Path | None:
    """Headers of $LED_FAST_TORCH_INCLUDE, of the build environment's torch, or of the torch beside pip's interpreter.

    pip's build isolation hides site-packages from sys.path but runs the same interpreter, so sysconfig names them.
    """
    if given := os.environ.get("LED_FAST_TORCH_INCLUDE"):
        return Path(given)
    installed = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    for folder in (*sys.path, *installed, *site.getsitepackages(), site.getusersitepackages()):
        include = Path(folder) / "torch" / "include"
        if torch_version(include) >= OLDEST_TORCH:
            return include
    return None


def find_nvcc() -> str | None:
    wanted = os.environ.get("LED_FAST_CUDA", "auto").lower()
    if wanted not in ("auto", "0", "1"):
        raise SystemExit(f"led_fast: LED_FAST_CUDA must be auto, 0 or 1, got {wanted!r}")
    if wanted == "0":
        return None
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    if home:
        nvcc = shutil.which("nvcc", path=f"{home}/bin")
    else:
        nvcc = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if nvcc is None and wanted == "1":
        raise SystemExit("led_fast: LED_FAST_CUDA=1 but no nvcc was found; set CUDA_HOME to the CUDA toolkit")
    return nvcc


class CMakeBuild(build_ext):
    """Builds all extension modules with one CMake call."""

    def run(self) -> None:
        include = find_torch_include()
        if include is None:
            raise SystemExit(
                "led_fast: no torch >= 2.11 found; install torch first or set LED_FAST_TORCH_INCLUDE"
            )
        import pybind11

        build = Path(self.build_temp).resolve()
        build.mkdir(parents=True, exist_ok=True)
        target = ROOT if self.inplace else Path(self.build_lib).resolve()
        options = {
            # pip's build folder moves: a cached path would be gone.
            "CMAKE_MAKE_PROGRAM": shutil.which("ninja"),
            "Python_EXECUTABLE": sys.executable,
            "pybind11_DIR": pybind11.get_cmake_dir(),
            "LED_FAST_TORCH_INCLUDE_DIR": include,
            "LED_FAST_CUDA": "ON" if NVCC else "OFF",
        }
        if NVCC:
            options["CMAKE_CUDA_COMPILER"] = NVCC
        if architectures := os.environ.get("CMAKE_CUDA_ARCHITECTURES"):
            options["CMAKE_CUDA_ARCHITECTURES"] = architectures
        print(f"led_fast: torch headers in {include}, nvcc {NVCC or 'not used'}", flush=True)
        definitions = [f"-D{name}={value}" for name, value in options.items()]
        subprocess.check_call(["cmake", "-S", str(ROOT), "-B", str(build), "-G", "Ninja", *definitions])
        jobs = ["-j", os.environ["MAX_JOBS"]] if "MAX_JOBS" in os.environ else []
        subprocess.check_call(["cmake", "--build", str(build), *jobs])
        # A build folder outlives a change of LED_FAST_CUDA.
        for stale in (target / "led_fast").glob("_C*.so"):
            stale.unlink()
        subprocess.check_call(["cmake", "--install", str(build), "--prefix", str(target)])


NVCC = find_nvcc()
setup(
    ext_modules=[Extension(f"led_fast.{name}", []) for name in ("_C", *(["_C_cuda"] if NVCC else []))],
    cmdclass={"build_ext": CMakeBuild},
    # Build requirements only where the machine lacks them, so that a torch already installed is the one built against.
    setup_requires=[
        *([] if find_torch_include() else ["torch>=2.11"]),
        *([] if shutil.which("cmake") else ["cmake>=3.24"]),
    ],
)
