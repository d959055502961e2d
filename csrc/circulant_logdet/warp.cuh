// Elimination of a complex matrix in the registers of a warp, with partial pivoting.
#pragma once
#include <cfloat>

#include "circulant_logdet/determinant.cuh"
#include "circulant_logdet/symbol.cuh"

namespace led::circulant_logdet {

constexpr int kThreads = 128;  // of a block of warp_kernel and what serves it

// A larger magnitude gives a larger key, up to a part in 2^15, any but zero a larger one than zero; of equals, the
// lower lane's is the larger. The last bits, which are those of the lane, are rounded up.
__device__ __forceinline__ int leading_bits(float size) { return __float_as_int(size); }
__device__ __forceinline__ int leading_bits(double size) {
  const long long bits = __double_as_longlong(size);
  return int(bits >> 32) + (int(bits) != 0);
}
// What is not zero stays so.
template <typename Real> __device__ __forceinline__ Real weigh(Real size, Real scale) {
  constexpr Real least = Real(sizeof(Real) == 4 ? FLT_MIN : DBL_MIN);
  return size == 0 ? size : max(size * scale, least);
}
template <int N, typename Real> __device__ __forceinline__ int pivot_key(Real size, int lane) {
  return ((leading_bits(size) + N - 1) | (N - 1)) ^ lane;
}

// Column `lane` of a symbol, one entry a register, of taps that prepare_kernel has folded. What lies beyond n rows is
// never used.
template <typename Real, int N>
__device__ __forceinline__ void evaluate_column(Complex<Real> (&column)[N], const Complex<Real>* folded,
                                                const Complex<Real>* phases, int n, int cosines) {
#pragma unroll
  for (int i = 0; i < N; ++i) column[i] = {0, 0};
#pragma unroll 1
  for (int t = 0; t < cosines; ++t, folded += n * n) {
    const Complex<Real> phase = phases[t];
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if (i >= n) break;
      const Complex<Real> tap = folded[i * n];
      column[i][0] += tap[0] * phase[0];
      column[i][1] += tap[1] * phase[1];
    }
  }
}

// N lanes have one symbol of at most N columns, a column a lane, because the taps of neighbouring columns are
// neighbours in memory. What is eliminated is the transposed symbol, whose rows these are. Rows are not exchanged: a
// lane remembers the step that its row was the pivot of, and the inverse of the symbol is written through that
// permutation as [in, out]. Registers cannot be indexed, so the columns move up by one at each step: the column to
// eliminate is always the first, and its place in the inverse the last.
// Pivots are the largest in proportion to their rows, else the scales of the symbol's columns would choose them. Pivot
// rows are divided by their pivots at the end only: they too are just rows of which a multiple of the present pivot row
// is taken, of the pivot row itself none.
template <typename Real, int N, bool kInverse>
__global__ void __launch_bounds__(kThreads) warp_kernel(const Complex<Real>* folded, const Complex<Real>* all_phases,
                                                        double* logs, Complex<Real>* inverses, Shape s) {
  const int lane = threadIdx.x % N, n = s.channels, cosines = int(s.taps.cosines());
  const int64_t index = int64_t(blockIdx.x) * (kThreads / N) + threadIdx.x / N, count = s.batch * s.frequencies;
  const Task<Real> task(min(index, count - 1), nullptr, all_phases, s);  // all lanes take part in the shuffles
  Complex<Real> row[N];
  evaluate_column(row, folded + task.convolution * cosines * s.entries() + min(lane, n - 1), task.phases, n, cosines);
  Real largest = 0;
#pragma unroll
  for (int j = 0; j < N; ++j) largest = max(largest, fabs(row[j][0]) + fabs(row[j][1]));
  const Real scale = scale_of(largest);
  Complex<Real> pivot = {1, 0};
  int step = lane < n ? -1 : N;  // the step that this lane's row was the pivot of; -1: none yet
  int pivot_lane = 0;            // lane k: the lane of step k's pivot
#pragma unroll 1
  for (int k = 0; k < n; ++k) {
    const Complex<Real> factor = row[0];
    int key = step < 0 ? pivot_key<N>(weigh(magnitude(factor), scale), lane) : -1;
#pragma unroll
    for (int offset = N / 2; offset > 0; offset /= 2) key = max(key, __shfl_xor_sync(kFullMask, key, offset, N));
    const int who = N - 1 - key % N;
    const Complex<Real> chosen = {__shfl_sync(kFullMask, factor[0], who, N), __shfl_sync(kFullMask, factor[1], who, N)};
    const bool is_pivot = lane == who;
    if (is_pivot) {
      pivot = chosen;
      step = k;
    }
    Complex<Real> multiplier = multiply(factor, reciprocal(chosen));
    if (kInverse && lane == k) pivot_lane = who;
    if (kInverse && is_pivot) multiplier = {0, 0};
#pragma unroll
    for (int j = 1; j < N; ++j) {
      if (!kInverse && j % 4 == 1 && j >= n - k) break;  // only the columns not yet eliminated, by fours
      const Complex<Real> entry = {__shfl_sync(kFullMask, row[j][0], who, N),
                                   __shfl_sync(kFullMask, row[j][1], who, N)};
      row[j - 1] = {row[j][0] - multiplier[0] * entry[0] + multiplier[1] * entry[1],
                    row[j][1] - multiplier[0] * entry[1] - multiplier[1] * entry[0]};
    }
    if constexpr (kInverse) row[N - 1] = {is_pivot ? Real(1) : -multiplier[0], -multiplier[1]};
  }
  const SquaredDeterminant determinant = product_over_lanes<N>(square_of(pivot));
  if (lane == 0 && index < count) logs[task.log_index] = determinant.log_abs() * task.weight_of_frequency;
  if constexpr (kInverse) {
    // A singular symbol adds nothing to the gradient. What is not a number has made all entries NaN.
    const Real weight = Real(determinant.mantissa == 0 ? 0 : task.weight_of_frequency);
    Complex<Real> factor = reciprocal(pivot);
    factor = {factor[0] * weight, factor[1] * weight};
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const int column = j - (N - n), in = __shfl_sync(kFullMask, pivot_lane, column, N);
      if (column >= 0 && lane < n && index < count)
        inverses[task.matrix * s.entries() + in * n + step] = multiply(row[j], factor);
    }
  }
}

}  // namespace led::circulant_logdet
