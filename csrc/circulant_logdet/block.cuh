// Symbols eliminated in the shared memory of a block, a matrix a block.
#pragma once
#include "circulant_logdet/determinant.cuh"
#include "circulant_logdet/symbol.cuh"
#include "common/shared_memory.h"

namespace led::circulant_logdet {

// The matrix from the taps. Those of an entry lie together, so that lanes that read their own touch each line again and
// again: a warp first brings those of 32 entries to the last rows of the matrix, as long as these are empty.
template <typename Real, int kThreads>
__device__ __forceinline__ void evaluate_symbols(BlockMatrix<Real>& m, const Task<Real>& task, const Taps& taps) {
  const int n = m.n, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t count = taps.count(), reals_of_row = 2 * m.stride;
  const int last_rows = int(min(int64_t(n), (kThreads * count + reals_of_row - 1) / reals_of_row));
  const int brought = (n - last_rows) * n;
  Real* const brought_taps = reinterpret_cast<Real*>(&m.entry(n - last_rows, 0)) + warp * 32 * count;
  for (int first = 32 * warp; first < brought; first += kThreads) {
    const int e = first + lane, entries = min(32, brought - first);
    for (int i = lane; i < entries * count; i += 32) brought_taps[i] = task.weight[first * count + i];
    __syncwarp();  // the taps are there
    if (lane < entries) m.entry(e / n, e % n) = evaluate_symbol(brought_taps + lane * count, task.phases, taps);
    __syncwarp();  // they have been read
  }
  __syncthreads();  // nobody needs the last rows any more
  for (int e = brought + threadIdx.x; e < n * n; e += kThreads)
    m.entry(e / n, e % n) = evaluate_symbol(task.weight + e * count, task.phases, taps);
}

template <typename Real, bool kInverse, int kSlots>
__global__ void __launch_bounds__(block_threads(kSlots), min_blocks(kSlots, sizeof(Real)))
    block_kernel(const Real* weights, const Complex<Real>* all_phases, double* logs, Complex<Real>* inverses, Shape s) {
  constexpr int kThreads = block_threads(kSlots);
  GPU_DYNAMIC_SHARED(unsigned char, memory);
  __shared__ double log_abs_det;
  BlockMatrix<Real> m(memory, s.channels);
  const int n = m.n, thread = threadIdx.x;
  const Task<Real> task(blockIdx.x, weights, all_phases, s);
  evaluate_symbols<Real, kThreads>(m, task, s.taps);
  eliminate_in_block<Real, kInverse, kSlots>(m);
  const double sum = log_abs_det_in_block(m, &log_abs_det);
  if (thread == 0) logs[task.log_index] = sum * task.weight_of_frequency;
  if constexpr (kInverse) {
    // A singular symbol adds nothing to the gradient; what is not a number makes it NaN.
    const Real scale = sum == -INFINITY ? Real(0) : Real(task.weight_of_frequency + (sum - sum));
    for (int e = thread; e < n * n; e += kThreads) {
      const Complex<Real> entry = m.entry(m.order[e % n], e / n);
      inverses[task.matrix * s.entries() + int64_t(m.order[e / n]) * n + e % n] = {entry[0] * scale, entry[1] * scale};
    }
  }
}

template <typename Real, bool kInverse>
cudaError_t eliminate_in_blocks(const Real* weight, const Complex<Real>* phases, double* logs, Complex<Real>* inverses,
                                const Shape& s, cudaStream_t stream) {
  const auto block = block_kernel_for<Real, sizeof(Real) == 4 ? 2 : 1>(
      s.channels, [](auto slots) { return &block_kernel<Real, kInverse, slots.value>; });
  if (!block.kernel) return cudaErrorInvalidValue;
  const size_t bytes = BlockMatrix<Real>::bytes(s.channels);
  const cudaError_t error = allow_dynamic_shared(block.kernel, bytes);
  if (error != cudaSuccess) return error;
  return GPU_LAUNCH(block.kernel, unsigned(s.batch * s.frequencies), block.threads, bytes, stream, weight, phases, logs,
                    inverses, s);
}

}  // namespace led::circulant_logdet
