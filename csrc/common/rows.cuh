// How kernels share out the elements of rows, and add up a number of each element over its row: a short row belongs to
// a few threads of a warp, a longer one to a block, and a long one to several blocks, whose sums a second kernel adds.
// All in a fixed order: bitwise the same on every run.
#pragma once
#include "common/reduce.cuh"

namespace led {

constexpr int kThreads = 256;  // of a block

// The accesses begin + thread, begin + thread + threads, ... below end of row `row` are those of one thread.
struct Share {
  int64_t row, begin, end;
  int thread, threads;
};

// kPieces: the block has one of a row's `parts` pieces. Else 2^parts threads of a warp have a row.
template <bool kPieces>
__device__ __forceinline__ Share share_of(int64_t accesses, int64_t accesses_of_piece, unsigned parts) {
  if constexpr (kPieces) {
    const unsigned row = blockIdx.x / parts;
    const int64_t begin = (blockIdx.x - row * parts) * accesses_of_piece;
    return {row, begin, min(begin + accesses_of_piece, accesses), int(threadIdx.x), kThreads};
  } else {
    const int threads = 1 << parts, thread = threadIdx.x & (threads - 1);
    return {int64_t(blockIdx.x) * (kThreads >> parts) + (threadIdx.x >> parts), 0, accesses, thread, threads};
  }
}

// Adds up what the threads of one row or piece found. All threads of the block take part.
template <bool kPieces, typename Real>
__device__ __forceinline__ void write_sum(Real sum, const Share& share, Real* sums, double* workspace, int64_t rows,
                                          unsigned parts) {
  if constexpr (kPieces) {
    __shared__ Real scratch[kThreads / 32];
    sum = block_sum<kThreads>(sum, scratch);
  } else {
    sum = group_sum(sum, share.threads);
  }
  if (share.thread > 0 || share.row >= rows) return;
  if (kPieces && parts > 1) workspace[blockIdx.x] = sum;
  else sums[share.row] = sum;
}

// One block a row: adds its pieces in order.
template <typename Real>
__global__ void __launch_bounds__(kThreads) sum_pieces_kernel(const double* workspace, Real* sums, int64_t pieces) {
  __shared__ double scratch[kThreads / 32];
  const double* const from = workspace + blockIdx.x * pieces;
  double sum = 0;
  for (int64_t i = threadIdx.x; i < pieces; i += kThreads) sum += from[i];
  sum = block_sum<kThreads>(sum, scratch);
  if (threadIdx.x == 0) sums[blockIdx.x] = Real(sum);
}

template <typename Real>
cudaError_t sum_pieces(const double* workspace, Real* sums, int64_t rows, int64_t pieces, cudaStream_t stream) {
  return GPU_LAUNCH((sum_pieces_kernel<Real>), unsigned(rows), kThreads, 0, stream, workspace, sums, pieces);
}

// log2 of the fewest threads of a warp that have at most `most` accesses each.
inline int threads_log2(int64_t accesses, int most) {
  int log2 = 0;
  while (log2 < 5 && accesses > most << log2) ++log2;
  return log2;
}

inline unsigned blocks_of_rows(int64_t rows, int log2) {
  const int64_t rows_of_block = kThreads >> log2;
  return unsigned((rows + rows_of_block - 1) / rows_of_block);
}

}  // namespace led
