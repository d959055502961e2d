"""The compiled kernels spill no registers, and use no more than their launch bounds promise."""

import shutil

import pytest
from simt import build
from simt.ptxas import kernel_reports

SOURCES = sorted(build.CSRC.glob("*/cuda.cu"))


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.parent.name)
def test_registers(source):
    reports = kernel_reports(source)
    print(*reports, sep="\n")
    assert reports, f"{source} has no kernel"
    for report in reports:
        assert report.max_threads is not None, f"without __launch_bounds__: {report}"
        assert report.spill_bytes == 0, str(report)
        assert report.registers <= report.registers_promised, str(report)


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
def test_spills_are_seen(tmp_path):
    source = tmp_path / "spill" / "cuda.cu"
    source.parent.mkdir()
    source.write_text(
        """
        #include "common/gpu.h"
        __global__ void __launch_bounds__(1024, 2) spills(const float* x, float* y) {
          float v[64];
        #pragma unroll
          for (int i = 0; i < 64; i++) v[i] = x[i * 1024 + threadIdx.x];
          __syncthreads();
        #pragma unroll
          for (int i = 0; i < 64; i++) y[(i * 1024 + threadIdx.x) * 2] = v[63 - i] * v[i] + v[(i + 7) % 64];
        }
        """
    )
    (report,) = kernel_reports(source)
    assert (report.max_threads, report.min_blocks, report.registers_promised) == (1024, 2, 32)
    assert report.spill_bytes > 0
