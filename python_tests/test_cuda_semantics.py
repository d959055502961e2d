"""The SIMT executor agrees with a GPU: the same kernels, compiled by nvcc, give the same bits."""

import ctypes
import shutil
from pathlib import Path

import pytest
import torch
from cuda_operators import needs_cuda
from simt import build
from simt.library import SCHEDULES
from simt.suite import load
from test_simt_semantics import KERNELS


@pytest.fixture(scope="module")
def on_gpu(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The test kernels as a library for the GPU."""
    if shutil.which("nvcc") is None:
        pytest.skip("needs nvcc")
    library = tmp_path_factory.mktemp("semantics") / "libsemantics.so"
    compile_for_gpu(library, "native")
    return ctypes.CDLL(str(library))


def compile_for_gpu(library: Path, architecture: str) -> None:
    source = build.kernel_source("semantics")
    command = [
        "nvcc",
        "-std=c++17",
        f"-arch={architecture}",
        "-shared",
        "-Xcompiler=-fPIC",
        "-I",
        str(build.CSRC),
    ]
    build.run([*command, "-o", str(library), str(source)])


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("schedule", SCHEDULES[:3], ids=str)
@pytest.mark.cuda
@needs_cuda[1]
def test_executor_and_gpu_agree(on_gpu, schedule, name):
    x, executor = torch.arange(1.0, 257.0), torch.zeros(256)
    kernels = load("semantics", "plain")
    kernels.configure(schedule)
    kernels.launch("semantics", KERNELS[name][0], 0, x, executor)

    x_gpu, gpu = x.cuda(), torch.zeros(256, device="cuda")
    pointers = (ctypes.c_void_p(t.data_ptr()) for t in (x_gpu, gpu))
    assert on_gpu.semantics(KERNELS[name][0], 0, *pointers, None) == 0
    torch.cuda.synchronize()
    assert torch.equal(gpu.view(torch.int32).cpu(), executor.view(torch.int32))


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
@pytest.mark.slow
def test_kernels_compile_for_a_gpu(tmp_path):
    compile_for_gpu(tmp_path / "libsemantics.so", "sm_90")
    assert hasattr(ctypes.CDLL(str(tmp_path / "libsemantics.so")), "semantics")
