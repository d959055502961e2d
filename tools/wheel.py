"""Builds what is released: `python tools/wheel.py [FOLDER]`, an sdist, and a manylinux wheel from that sdist alone.

Wants auditwheel and patchelf, and what a build without isolation wants: torch, setuptools, pybind11, ninja, cmake. With
nvcc on the path the CUDA module is in the wheel. It says what is in it, and its size.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OF_TORCH = "libtorch*", "libc10*", "libcuda.so*"
"""Libraries that are in the process once torch is imported, and the driver's: never put into the wheel."""


def run(*command: object, cwd: Path = ROOT) -> None:
    """Runs a command; its failure is ours."""
    print("$", *command, flush=True)
    subprocess.run([str(part) for part in command], cwd=cwd, check=True)


def build(out: Path) -> Path:
    """Builds both into a folder; returns the wheel."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        run(sys.executable, "-c", f"import setuptools.build_meta as b; b.build_sdist({str(out)!r})")
        (sdist,) = out.glob("led_fast-*.tar.gz")
        pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
        run(*pip, "--wheel-dir", scratch, sdist, cwd=Path(scratch))
        (plain,) = Path(scratch).glob("*.whl")
        excluded = [part for name in OF_TORCH for part in ("--exclude", name)]
        run(
            sys.executable,
            "-m",
            "auditwheel",
            "repair",
            "--plat",
            "auto",
            *excluded,
            "--wheel-dir",
            out,
            plain,
        )
    (wheel,) = out.glob("*manylinux*.whl")
    return wheel


def describe(wheel: Path) -> None:
    """Prints its size, and its compiled modules."""
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB")
    for file in zipfile.ZipFile(wheel).infolist():
        if ".so" in file.filename:
            print(f"  {file.filename}: {file.file_size / 1e6:.1f} MB unpacked")


if __name__ == "__main__":
    describe(build(Path(sys.argv[1] if len(sys.argv) > 1 else "dist").resolve()))
