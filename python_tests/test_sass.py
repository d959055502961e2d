"""The machine code of the built CUDA module: no spills, registers within launch bounds, 16-byte accesses, no float64
where float32 is promised, and no more instructions in the loops than the committed counts."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))
import gpu_code
import sass
from sass import Kernel

CSRC = Path(__file__).resolve().parents[1] / "csrc"
# The elements of a full pack, by the type in a kernel's first template argument.
PACK = {"float": 4, "double": 2, "__half": 8, "__nv_bfloat16": 8}
FLOAT64 = r"D(ADD|MUL|FMA|SETP|MNMX)|MUFU\.(RCP|RSQ)64H|F2F\.F64|I2F\.F64"
# What adds up partial sums that other kernels left in float64: one for thousands of elements.
ADDS_PARTIAL_SUMS = re.compile("::(sum|sum_pieces|sum_slices|merge|parameter_gradient)_kernel<")

# A pivot's square and a product, once for the work of a row; the sum over four warps, once for a thousand elements.
FEW_IN_FLOAT64 = re.compile("::(block|invert)_kernel<|staircase::backward_kernel<")


@pytest.fixture(scope="module")
def kernels() -> list[Kernel]:
    module = importlib.util.find_spec("led_fast._C_cuda")
    if module is None or module.origin is None:
        pytest.skip("led_fast was built without its CUDA module")
    if sass.cuobjdump() is None:
        pytest.skip("needs cuobjdump and nvdisasm: pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm")
    return sass.read_kernels(Path(module.origin))


def test_every_source_is_seen(kernels):
    operators = {path.parent.name for path in CSRC.glob("*/cuda.cu")}
    for architecture in {k.architecture for k in kernels}:
        assert {k.operator for k in kernels if k.architecture == architecture} >= operators


def test_registers_and_local_memory(kernels):
    for kernel in kernels:
        assert kernel.max_threads is not None, f"without __launch_bounds__: {kernel}"
        assert kernel.local_bytes == 0 and kernel.count("(LDL|STL)") == 0, f"spills: {kernel}"


def _packed(kernel: Kernel) -> str | None:
    """The element type of a kernel that moves full packs of it: name<type, elements, …>."""
    found = re.search(r"::(?:forward|backward|measure)_kernel<(\w+), (\d+)[,>]", kernel.name)
    return found[1] if found and PACK.get(found[1]) == int(found[2]) else None


def test_packs_move_as_16_bytes(kernels):
    packed = [k for k in kernels if _packed(k)]
    assert {_packed(k) for k in packed} == set(PACK)
    for kernel in packed:
        assert kernel.count(r"LDG\.E.*\.128") > 0, f"no 16-byte load: {kernel}"
        if "::measure_kernel" not in kernel.name:  # which writes sums alone, as forward kernels do besides
            stores, packed_stores = kernel.count("STG"), kernel.count(r"STG\.E.*\.128")
            assert packed_stores > 0, f"no 16-byte store: {kernel}"
            assert stores - packed_stores <= 2 * ("::forward_kernel" in kernel.name), (
                f"{stores} stores: {kernel}"
            )
        assert kernel.count(r"(LDG|STG)\.E.*\.U16") == 0, f"moves single elements: {kernel}"


def test_float64_stays_out_of_the_loops_of_float32(kernels):
    for kernel in kernels:
        if "double" in kernel.name or ADDS_PARTIAL_SUMS.search(kernel.name):
            continue
        for loop in kernel.loops:
            found = kernel.count(FLOAT64, loop.instructions)
            allowed = 8 if FEW_IN_FLOAT64.search(kernel.name) else 0
            assert found <= allowed, f"{found} in a loop of {len(loop.instructions)} instructions: {kernel}"


def test_loops_have_no_more_instructions_than_committed(kernels):
    committed = {(row["loop"], row["architecture"]): row for row in gpu_code.read()["rows"]}
    now = gpu_code.count(kernels)
    assert {row["loop"] for row in now} == {loop for loop, _ in committed}
    known = [row for row in now if (row["loop"], row["architecture"]) in committed]
    if not known:
        pytest.skip("built for architectures of which no counts are committed")
    for row in known:
        before = committed[row["loop"], row["architecture"]]
        # A tenth for what another nvcc makes of the same source.
        assert row["instructions"] <= 1.1 * before["instructions"], row


@pytest.fixture
def compile_kernels(tmp_path):
    """Kernels of a source text, compiled for sm_90."""
    if shutil.which("nvcc") is None or sass.cuobjdump() is None:
        pytest.skip("needs nvcc, cuobjdump and nvdisasm")

    def run(text: str) -> list[Kernel]:
        source, binary = tmp_path / "kernels.cu", tmp_path / "kernels.fatbin"
        source.write_text(f'#include "common/gpu.h"\nnamespace led::trial {{\n{text}\n}}\n')
        target = "arch=compute_90,code=[sm_90,compute_90]"
        command = ["nvcc", "-std=c++17", "-gencode", target, "-fatbin", "-I", str(CSRC), "-o", str(binary)]
        subprocess.run([*command, str(source)], check=True)
        return sass.read_kernels(binary)

    return run


def test_spills_are_seen(compile_kernels):
    (kernel,) = compile_kernels("""
        __global__ void __launch_bounds__(1024, 2) spills(const float* x, float* y) {
          float v[64];
        #pragma unroll
          for (int i = 0; i < 64; i++) v[i] = x[i * 1024 + threadIdx.x];
          __syncthreads();
        #pragma unroll
          for (int i = 0; i < 64; i++) y[(i * 1024 + threadIdx.x) * 2] = v[63 - i] * v[i] + v[(i + 7) % 64];
        }""")
    assert (kernel.max_threads, kernel.min_blocks, kernel.registers_promised) == (1024, 2, 32)
    assert kernel.local_bytes > 0
    assert kernel.count("STL") > 0


def test_accesses_loops_and_float64_are_seen(compile_kernels):
    kernels = compile_kernels("""
        template <typename T> __global__ void __launch_bounds__(256) copies(const T* x, T* y, int n) {
        #pragma unroll 1
          for (int i = threadIdx.x; i < n; i += 256) y[i] = x[i];
        }
        template __global__ void copies<Pack<float, 4>>(const Pack<float, 4>*, Pack<float, 4>*, int);
        template __global__ void copies<__half>(const __half*, __half*, int);
        __global__ void __launch_bounds__(256) adds(double* x) { x[threadIdx.x] += 1; }""")
    copies, narrow = (next(k for k in kernels if part in k.name) for part in ("Pack", "__half"))
    adds = next(k for k in kernels if "adds" in k.name)
    assert copies.operator == "trial"
    assert (copies.count(r"LDG\.E.*\.128"), copies.count(r"STG\.E.*\.128")) == (1, 1)
    assert (narrow.count(r"LDG\.E.*\.U16"), narrow.count(r"STG\.E.*\.U16")) == (1, 1)
    (loop,) = copies.loops
    assert copies.count("LDG", loop.instructions) == 1
    assert loop.always == loop.instructions
    assert len(loop.instructions) < len(copies.instructions)
    assert (copies.count(FLOAT64), adds.count(FLOAT64)) == (0, 1)
