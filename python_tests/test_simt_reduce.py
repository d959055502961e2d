"""common/reduce.cuh and common/rows.cuh, run on the CPU by the SIMT executor."""

import torch
from simt import Kernels, Suite

suite = Suite("reduce", headers=("common/reduce.cuh", "common/rows.cuh"))

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


@suite.case(dtype=DTYPES, threads=[32, 96, 1024], columns=[1, 33, 97])
def row_sums(kernels: Kernels, dtype: torch.dtype, threads: int, columns: int) -> None:
    x = torch.randn(3, columns, dtype=torch.float64).to(dtype)
    sums = torch.full((3,), torch.nan, dtype=torch.float64 if dtype is torch.float64 else torch.float32)
    squares = sums.clone()
    kernels.launch("reduce_row_sums", DTYPES.index(dtype), x, sums, squares, *x.shape, threads)
    torch.testing.assert_close(sums, x.to(sums.dtype).sum(1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(squares, x.to(sums.dtype).square().sum(1), atol=1e-5, rtol=1e-5)


def partial_sums(x: torch.Tensor, threads: int) -> torch.Tensor:
    """Of each row, those of `threads` threads that take its columns in turn, in the kernels' order."""
    padded = torch.nn.functional.pad(x, (0, -x.shape[1] % threads))
    sums = torch.zeros(len(x), threads, dtype=x.dtype)
    for part in padded.split(threads, 1):
        sums = sums + part
    return sums


def butterfly(sums: torch.Tensor) -> torch.Tensor:
    """The total of each row's lanes in the order of shuffles."""
    offset = sums.shape[1] // 2
    while offset:
        sums = sums + sums[:, torch.arange(sums.shape[1]) ^ offset]
        offset //= 2
    return sums[:, 0]


def block_total(sums: torch.Tensor) -> torch.Tensor:
    """The total of each row's 256 threads: warp by warp, then over the warps."""
    warps = butterfly(sums.reshape(-1, 32)).view(len(sums), 8)
    return butterfly(torch.nn.functional.pad(warps, (0, 24)))


@suite.case(rows=[1, 65, 300], columns=[1, 2, 7, 32, 100, 300], most=[4])
def narrow_rows(kernels: Kernels, rows: int, columns: int, most: int) -> None:
    x, sums = torch.randn(rows, columns), torch.full((rows,), torch.nan)
    kernels.launch("reduce_narrow_rows", x, sums, *x.shape, most)
    threads = next((t for t in (1, 2, 4, 8, 16) if t * most >= columns), 32)
    assert torch.equal(sums, butterfly(partial_sums(x, threads)))


@suite.case(columns=[5, 300, 301, 3000], piece=[300])
@suite.case(columns=[255, 256, 257, 600], piece=[1])
def pieces(kernels: Kernels, columns: int, piece: int) -> None:
    x, sums = torch.randn(3, columns), torch.full((3,), torch.nan)
    count = -(-columns // piece)
    workspace = torch.full((3 * count,), torch.nan, dtype=torch.float64) if count > 1 else None
    kernels.launch("reduce_pieces", x, sums, workspace, *x.shape, piece)
    of_pieces = torch.stack([block_total(partial_sums(part, 256)) for part in x.split(piece, 1)], 1)
    total = of_pieces[:, 0] if count == 1 else block_total(partial_sums(of_pieces.double(), 256)).float()
    assert torch.equal(sums, total)


suite.wrong(
    "another order",
    "offset = threads / 2; offset > 0; offset /= 2",
    "offset = 1; offset < threads; offset *= 2",
)
suite.wrong(
    "pieces of the first 256 only",
    "i < pieces; i += kThreads",
    "i < min(pieces, int64_t(kThreads)); i += kThreads",
)
suite.wrong("pieces of row 0", "workspace + blockIdx.x * pieces", "workspace")
suite.wrong("more threads than needed", "accesses > most << log2", "accesses >= most << log2")
suite.wrong(
    "row of a piece", "const unsigned row = blockIdx.x / parts;", "const unsigned row = blockIdx.x % parts;"
)
suite.wrong("off-by-one bound", "i < columns", "i <= columns")
suite.wrong("missing tail", "i < columns; i += kThreads", "i + kThreads < columns; i += kThreads")
suite.wrong("wrong thread", "if (threadIdx.x == 0) {", "if (threadIdx.x == kThreads - 1) {")
suite.wrong("wrong stride", "columns; i += kThreads", "columns; i += kThreads + 1")
suite.wrong("wrong sign", "sum += value;", "sum -= value;")

test_cases = suite.test_cases()
test_launches = suite.test_launches()
