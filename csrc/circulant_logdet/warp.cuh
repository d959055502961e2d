// Elimination of a complex matrix in the registers of a warp, with partial pivoting.
#pragma once
#include "circulant_logdet/symbol.cuh"

namespace led::circulant_logdet {

constexpr int kThreads = 128;  // of a block of warp_kernel, phase_kernel and sum_kernel
// Up to so many channels, a warp has the matrix in registers.
template <typename Real> constexpr int kWarpChannels = sizeof(Real) == 4 ? 32 : 16;

// N lanes have one matrix of at most N rows, a row a lane. Rows are not exchanged: a lane remembers the step that its
// row was the pivot of, and the inverse is written through that permutation, transposed, weighted, as [out, in].
// Registers cannot be indexed, so the columns move up by one at each step: the column to eliminate is always the first,
// and its place in the inverse the last.
template <typename Real, int N, bool kInverse>
__global__ void __launch_bounds__(kThreads)
    warp_kernel(const Real* weights, const Complex<Real>* all_phases, double* logs, Complex<Real>* inverses, Shape s) {
  const int lane = threadIdx.x % N, n = s.channels;
  const int64_t index = int64_t(blockIdx.x) * (kThreads / N) + threadIdx.x / N, count = s.batch * s.frequencies;
  const Task<Real> task(min(index, count - 1), weights, all_phases, s);  // all lanes take part in the shuffles
  Complex<Real> row[N];
#pragma unroll
  for (int j = 0; j < N; ++j) {
    row[j] = {0, 0};
    if (lane < n && j < n)
      row[j] = evaluate_symbol(task.weight + (int64_t(lane) * n + j) * s.taps.count(), task.phases, s.taps);
  }
  Complex<Real> pivot = {1, 0};
  int step = lane < n ? -1 : N;  // the step that this lane's row was the pivot of; -1: none yet
  int pivot_lane = 0;            // lane k: the lane of step k's pivot
#pragma unroll 1
  for (int k = 0; k < n; ++k) {
    Real size = step < 0 ? magnitude(row[0]) : Real(-1);
    int who = lane;
#pragma unroll
    for (int offset = N / 2; offset > 0; offset /= 2) {
      const Real other_size = __shfl_xor_sync(kFullMask, size, offset, N);
      const int other = __shfl_xor_sync(kFullMask, who, offset, N);
      if (other_size > size || (other_size == size && other < who)) size = other_size, who = other;
    }
    if (lane == k) pivot_lane = who;
    const Complex<Real> factor = row[0];
    const Complex<Real> chosen = {__shfl_sync(kFullMask, factor[0], who, N), __shfl_sync(kFullMask, factor[1], who, N)};
    const Complex<Real> inverse = reciprocal(chosen);
    const bool is_pivot = lane == who;
#pragma unroll
    for (int j = 1; j < N; ++j) {
      if (!kInverse && j >= n - k) continue;  // only the columns not yet eliminated
      const Complex<Real> entry = {__shfl_sync(kFullMask, row[j][0], who, N),
                                   __shfl_sync(kFullMask, row[j][1], who, N)};
      const Complex<Real> scaled = multiply(entry, inverse), product = multiply(factor, scaled);
      row[j - 1] = is_pivot ? scaled : Complex<Real>{row[j][0] - product[0], row[j][1] - product[1]};
    }
    const Complex<Real> product = multiply(factor, inverse);
    row[N - 1] = is_pivot ? inverse : Complex<Real>{-product[0], -product[1]};
    if (is_pivot) {
      pivot = chosen;
      step = k;
    }
  }
  double sum = log_abs(pivot);
#pragma unroll
  for (int offset = N / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(kFullMask, sum, offset, N);
  if (lane == 0 && index < count) logs[task.log_index] = sum * task.weight_of_frequency;
  if constexpr (kInverse) {
    // A singular symbol adds nothing to the gradient; what is not a number makes it NaN.
    const Real scale = sum == -INFINITY ? Real(0) : Real(task.weight_of_frequency + (sum - sum));
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const int column = j - (N - n), out = __shfl_sync(kFullMask, pivot_lane, column, N);
      if (column >= 0 && lane < n && index < count)
        inverses[task.matrix * s.entries() + int64_t(out) * n + step] = {row[j][0] * scale, row[j][1] * scale};
    }
  }
}

}  // namespace led::circulant_logdet
