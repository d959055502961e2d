"""common/reduce.cuh, run on the CPU by the SIMT executor."""

import torch
from simt import Kernels, Suite

suite = Suite("reduce", headers=("common/reduce.cuh",))

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


@suite.case(dtype=DTYPES, threads=[32, 96, 1024], columns=[1, 33, 97])
def row_sums(kernels: Kernels, dtype: torch.dtype, threads: int, columns: int) -> None:
    x = torch.randn(3, columns, dtype=torch.float64).to(dtype)
    sums = torch.full((3,), torch.nan, dtype=torch.float64 if dtype is torch.float64 else torch.float32)
    squares = sums.clone()
    kernels.launch("reduce_row_sums", DTYPES.index(dtype), x, sums, squares, *x.shape, threads)
    torch.testing.assert_close(sums, x.to(sums.dtype).sum(1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(squares, x.to(sums.dtype).square().sum(1), atol=1e-5, rtol=1e-5)


suite.wrong("off-by-one bound", "i < columns", "i <= columns")
suite.wrong("missing tail", "i < columns; i += kThreads", "i + kThreads < columns; i += kThreads")
suite.wrong("wrong thread", "if (threadIdx.x == 0)", "if (threadIdx.x == kThreads - 1)")
suite.wrong("wrong stride", "i += kThreads", "i += kThreads + 1")
suite.wrong("wrong sign", "sum += value;", "sum -= value;")

test_cases = suite.test_cases()
test_launches = suite.test_launches()
