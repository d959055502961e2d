// Symbols eliminated in the shared memory of a block, a matrix a block.
#pragma once
#include "circulant_logdet/symbol.cuh"

namespace led::circulant_logdet {

template <typename Real, bool kInverse>
__global__ void __launch_bounds__(kBlockThreads)
    block_kernel(const Real* weights, const Complex<Real>* all_phases, double* logs, Complex<Real>* inverses, Shape s) {
  GPU_DYNAMIC_SHARED(unsigned char, memory);
  __shared__ double scratch[kBlockThreads / 32];
  BlockMatrix<Real> m(memory, s.channels);
  const int n = m.n, thread = threadIdx.x;
  const Task<Real> task(blockIdx.x, weights, all_phases, s);
  for (int e = thread; e < n * n; e += kBlockThreads)
    m.entry(e / n, e % n) = evaluate_symbol(task.weight + e * s.taps.count(), task.phases, s.taps);
  eliminate_in_block<Real, kInverse>(m);
  double sum = sum_log_abs_pivots(m, scratch);
  if (thread == 0) {
    logs[task.log_index] = sum * task.weight_of_frequency;
    scratch[0] = sum;
  }
  if constexpr (kInverse) {
    if (thread == 0) find_places(m);
    __syncthreads();  // the inverse, the sum and the places are known
    sum = scratch[0];
    const Real scale = sum == -INFINITY ? Real(0) : Real(task.weight_of_frequency + (sum - sum));
    for (int e = thread; e < n * n; e += kBlockThreads) {
      const Complex<Real> entry = m.entry(e % n, e / n);
      inverses[task.matrix * s.entries() + int64_t(m.place[e / n]) * n + e % n] = {entry[0] * scale, entry[1] * scale};
    }
  }
}

template <typename Real, bool kInverse>
cudaError_t eliminate_in_blocks(const Real* weight, const Complex<Real>* phases, double* logs, Complex<Real>* inverses,
                                const Shape& s, cudaStream_t stream) {
  const size_t bytes = BlockMatrix<Real>::bytes(s.channels);
  const cudaError_t error =
      cudaFuncSetAttribute(block_kernel<Real, kInverse>, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes));
  if (error != cudaSuccess) return error;
  return GPU_LAUNCH((block_kernel<Real, kInverse>), unsigned(s.batch * s.frequencies), kBlockThreads, bytes, stream,
                    weight, phases, logs, inverses, s);
}

}  // namespace led::circulant_logdet
