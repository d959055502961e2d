"""The package: what is built and shipped, what an import says, and what `python -m led_fast.info` reports."""

import math
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

import led_fast
from led_fast.info import SelfCheck

ROOT = Path(__file__).parent.parent
HAS_NVCC = shutil.which("nvcc") is not None


def run(*command: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.skipif(not HAS_NVCC, reason="no nvcc")
def test_cuda_module_was_built_where_nvcc_is() -> None:
    assert led_fast.cuda_module_path() is not None


def test_info_passes_its_self_checks(tmp_path) -> None:
    done = run(sys.executable, "-m", "led_fast.info", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    # The vector whose norm is checked has no kernel of its own; the other two are a switch.
    without_kernel = {"perpendicular", "reference_in_use", "use_reference"}
    for op in set(led_fast.ops.__all__) - without_kernel:
        assert f"self-check {op} on cpu: ok" in done.stdout
    assert "WRONG" not in done.stdout


def test_a_nan_fails_a_self_check() -> None:
    one, nan = torch.ones(2), torch.full((2,), torch.nan)
    assert math.isnan(SelfCheck("op", lambda: (one, nan), lambda: (one, one), tuple).error("cpu"))


def test_unknown_setting_is_refused(tmp_path) -> None:
    done = run(sys.executable, "setup.py", "--version", cwd=ROOT, LED_FAST_CUDA="maybe")
    assert done.returncode != 0
    assert "LED_FAST_CUDA must be auto, 0 or 1, got 'maybe'" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "cuda", ["0", pytest.param("1", marks=pytest.mark.skipif(not HAS_NVCC, reason="no nvcc"))]
)
def test_wheel_from_sdist_holds_the_modules_and_nothing_of_the_tests(tmp_path, cuda) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    done = run(
        sys.executable,
        "-c",
        "import setuptools.build_meta as b, sys; print(b.build_sdist(sys.argv[1]))",
        tmp_path,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    (sdist,) = tmp_path.glob("*.tar.gz")
    done = run(
        *pip,
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        tmp_path,
        sdist,
        cwd=tmp_path,
        LED_FAST_CUDA=cuda,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    names = archive.namelist()
    for name in names:  # nor anything of the executor that runs CUDA kernels on the CPU
        assert "simt" not in name.lower() and b"simt_" not in archive.read(name), name
    modules = sorted(Path(name).name.split(".")[0] for name in names if name.endswith(".so"))
    assert modules == (["_C", "_C_cuda"] if cuda == "1" else ["_C"])
    folders = {name.split("/")[0] for name in names}
    assert folders == {"led_fast", f"led_fast-{led_fast.__version__}.dist-info"}
