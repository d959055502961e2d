"""A CUDA module that driver or GPU do not fit says so: at import, in `led_fast.info`, and where an op fails."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from led_fast.compatibility import driver_error, gpu_error

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("toolkit", "driver"), [(13000, 13000), (13020, 13000), (12090, 12000), (12080, 13010), (11080, 12040)]
)
def test_drivers_that_serve(toolkit, driver):
    assert driver_error(toolkit, driver) is None


def test_a_driver_too_old_says_which_and_what_to_do():
    said = driver_error(13010, 12080)
    for part in (
        "built with CUDA 13.1",
        "driver is for CUDA 12.8",
        "to 580 or later",
        "led_fast with CUDA 12.x",
    ):
        assert part in said
    assert "14.0" in driver_error(14000, 13020)
    assert driver_error(13000, 0) == "no NVIDIA driver is installed"


@pytest.mark.parametrize(
    ("architectures", "capability", "fits"),
    [
        ("80-real 90", (8, 0), True),
        ("80-real 90", (8, 6), True),  # machine code serves later minor versions
        ("86-real", (8, 0), False),
        ("80-real 90", (7, 5), False),
        ("80-real 90", (12, 0), True),  # by PTX
        ("80-real 90-real", (12, 0), False),
        ("120-real", (12, 0), True),
        ("90a-real", (9, 0), True),
        ("90a", (10, 0), False),  # neither code nor PTX of 90a serves another GPU
        ("80-virtual", (9, 0), True),
        ("90-virtual", (8, 0), False),
        ("native", (7, 5), True),  # cannot be told
    ],
)
def test_architectures(architectures, capability, fits):
    said = gpu_error(architectures, capability, 13000, 13000)
    assert (said is None) == fits
    if not fits:
        major, minor = capability
        assert f"{major}.{minor}" in said and f"CMAKE_CUDA_ARCHITECTURES={major}{minor}" in said


def test_ptx_needs_a_driver_as_new_as_the_toolkit():
    assert gpu_error("90", (9, 0), 13010, 13000) is None  # machine code does not
    said = gpu_error("80-real 90", (10, 0), 13010, 13000)
    assert "made by CUDA 13.1" in said and "for CUDA 13.0" in said


STAND_IN = """
import pathlib, sys, types
import torch
torch.version.cuda = "13.0"
module = types.ModuleType("led_fast._C_cuda")
module.build_info = lambda: {{"cuda_toolkit": 13000, "cuda_driver": {driver}, "cuda_architectures": "80-real 90"}}
sys.modules["led_fast._C_cuda"] = module
glob = pathlib.Path.glob
def with_module(self, pattern):
    return iter([self / "_C_cuda.so"]) if pattern == "_C_cuda.*.so" else glob(self, pattern)
pathlib.Path.glob = with_module
torch.cuda.is_available = lambda: {gpu}
torch.cuda.get_device_capability = lambda: (7, 5)
import led_fast
print(led_fast.cuda_error)
assert not torch.cuda.is_initialized()
import led_fast.info
print(led_fast.info._cuda_state())
print(led_fast.info._cuda_problem() is None)
"""


def imported(driver: int, gpu: bool) -> list[str]:
    """`cuda_error`, the line of `led_fast.info`, and whether all is fine, with a CUDA module that is not there."""
    code = STAND_IN.format(driver=driver, gpu=gpu)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT / "python_tests", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_import_and_info_name_an_old_driver():
    error, state, fine = imported(12080, gpu=True)
    assert error == f"the CUDA module cannot run: {driver_error(13000, 12080)}"
    assert state == f"unusable: {error}" and fine == "False"


def test_info_names_a_gpu_without_kernels():
    error, state, fine = imported(13000, gpu=True)
    assert error == "None"  # an import does not look at the GPU
    assert state.startswith("unusable: it has kernels for 80-real 90, none for this GPU") and fine == "False"


def test_a_fitting_driver_is_no_error():
    error, state, fine = imported(13020, gpu=False)
    assert (error, fine) == ("None", "True")
    assert state == "loaded, CUDA 13.0, architectures 80-real 90; no GPU visible"


RUNTIME = """
#pragma once
#define CUDART_VERSION 13000
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInsufficientDriver = 35,
                   cudaErrorCallRequiresNewerDriver = 36, cudaErrorNoKernelImageForDevice = 209,
                   cudaErrorUnsupportedPtxVersion = 222 };
enum cudaDeviceAttr { cudaDevAttrComputeCapabilityMajor = 75, cudaDevAttrComputeCapabilityMinor = 76 };
inline const char* cudaGetErrorString(cudaError_t) { return "what CUDA says"; }
inline cudaError_t cudaDriverGetVersion(int* version) { return *version = DRIVER, cudaSuccess; }
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaError_t(DEVICE_ERROR); }
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int) {
  return *value = which == cudaDevAttrComputeCapabilityMajor ? 7 : 5, cudaSuccess;
}
"""
PROGRAM = """
#include <cstdio>
#include <cstdlib>
#include "common/launch_error.h"
int main(int, char** argv) { std::puts(led::launch_error(cudaError_t(std::atoi(argv[1])), "80-real 90").c_str()); }
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
@pytest.mark.parametrize(
    ("error", "driver", "device_error"), [(35, 12080, 35), (209, 13000, 0), (222, 12080, 0)]
)
def test_an_op_that_cannot_launch_says_why(tmp_path, error, driver, device_error):
    (tmp_path / "cuda_runtime_api.h").write_text(RUNTIME)
    (tmp_path / "main.cpp").write_text(PROGRAM)
    command = [
        "g++",
        "-std=c++17",
        "-Wall",
        "-Werror",
        f"-DDRIVER={driver}",
        f"-DDEVICE_ERROR={device_error}",
    ]
    folders = ["-I", str(tmp_path), "-I", str(ROOT / "csrc")]
    program = str(tmp_path / "main")
    subprocess.run([*command, *folders, str(tmp_path / "main.cpp"), "-o", program], check=True)

    def said(number: int) -> str:
        return subprocess.run(
            [program, str(number)], capture_output=True, text=True, check=True
        ).stdout.strip()

    assert said(1) == "what CUDA says"
    gpu = "" if device_error else ", the GPU has compute capability 7.5"
    assert said(error) == (
        "what CUDA says. led_fast was built with CUDA 13.0 for architectures 80-real 90; the NVIDIA driver is for "
        f"CUDA {driver // 1000}.{driver % 1000 // 10}{gpu}. Update the driver, or build led_fast on this machine"
    )
