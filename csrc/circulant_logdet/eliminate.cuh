// Elimination of a complex matrix in the shared memory of a block, with partial pivoting.
#pragma once
#include "common/gpu.h"
#include "common/reduce.cuh"

namespace led::circulant_logdet {

constexpr int kBlockThreads = 256;

template <typename Real> using Complex = Pack<Real, 2>;

template <typename Real> __device__ __forceinline__ Complex<Real> multiply(Complex<Real> a, Complex<Real> b) {
  return {a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]};
}

// |re| + |im|, and infinity for NaN, so that a NaN becomes a pivot and is seen.
template <typename Real> __device__ __forceinline__ Real magnitude(Complex<Real> z) {
  const Real size = fabs(z[0]) + fabs(z[1]);
  return size == size ? size : Real(INFINITY);
}

// 1/z, and 0 for z = 0. Scaled, so that no square over- or underflows.
template <typename Real> __device__ __forceinline__ Complex<Real> reciprocal(Complex<Real> z) {
  const Real size = magnitude(z);
  if (size == 0) return {0, 0};
  const Real x = z[0] / size, y = z[1] / size, scale = 1 / size / (x * x + y * y);
  return {x * scale, -y * scale};
}

// log|z|: -inf for 0, NaN for infinity and NaN.
template <typename Real> __device__ __forceinline__ double log_abs(Complex<Real> z) {
  const double size = magnitude(z);
  if (size == 0) return -INFINITY;
  const double x = z[0] / size, y = z[1] / size;
  return log(size) + 0.5 * log(x * x + y * y);
}

// The shared memory of a matrix.
template <typename Real> struct BlockMatrix {
  int n, stride;
  Complex<Real>*entries, *pivot_row, *factors, *pivots;
  int *exchanged, *place;  // the row exchanged with row k; where column j of the inverse belongs

  // An odd stride: the entries of a column lie in different banks.
  static __host__ __device__ size_t bytes(int n) {
    return (size_t(n) * (n | 1) + 3 * n) * sizeof(Complex<Real>) + 2 * n * sizeof(int);
  }
  __device__ BlockMatrix(unsigned char* memory, int channels) : n(channels), stride(channels | 1) {
    entries = reinterpret_cast<Complex<Real>*>(memory);
    pivot_row = entries + n * stride;
    factors = pivot_row + n;
    pivots = factors + n;
    exchanged = reinterpret_cast<int*>(pivots + n);
    place = exchanged + n;
  }
  __device__ Complex<Real>& entry(int i, int j) { return entries[i * stride + j]; }
};

// The first warp finds the row, from k on, with the largest entry in column k. All its lanes return it.
template <typename Real> __device__ __forceinline__ int find_pivot(BlockMatrix<Real>& m, int k) {
  Real size = -1;
  int who = k;
  for (int i = k + int(threadIdx.x); i < m.n; i += 32) {
    const Real candidate = magnitude(m.entry(i, k));
    if (candidate > size) size = candidate, who = i;
  }
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    const Real other_size = __shfl_xor_sync(kFullMask, size, offset);
    const int other = __shfl_xor_sync(kFullMask, who, offset);
    if (other_size > size || (other_size == size && other < who)) size = other_size, who = other;
  }
  return who;
}

// Gauss-Jordan in place: leaves the pivots, and with kInverse the inverse, its columns in the order of the exchanges.
// Starts with a barrier and ends without one.
template <typename Real, bool kInverse> __device__ __forceinline__ void eliminate_in_block(BlockMatrix<Real>& m) {
  const int n = m.n, thread = threadIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (int k = 0; k < n; ++k) {
    __syncthreads();  // the symbol, or the last step's update, is there
    if (warp == 0) {
      const int who = find_pivot(m, k);
      if (lane == 0) m.exchanged[k] = who;
    }
    __syncthreads();  // the pivot is known
    const int who = m.exchanged[k];
    const Complex<Real> chosen = m.entry(who, k), inverse = reciprocal(chosen);
    for (int i = thread; i < n; i += kBlockThreads) m.factors[i] = m.entry(i == who ? k : i, k);
    if (thread == 0) m.pivots[k] = chosen;
    __syncthreads();  // column k has been read
    for (int j = (kInverse ? 0 : k) + thread; j < n; j += kBlockThreads) {
      const Complex<Real> entry = m.entry(who, j), scaled = j == k ? inverse : multiply(entry, inverse);
      m.entry(who, j) = m.entry(k, j);
      m.entry(k, j) = scaled;
      m.pivot_row[j] = scaled;
    }
    __syncthreads();  // rows are exchanged
    for (int i = (kInverse ? 0 : k + 1) + warp; i < n; i += kBlockThreads / 32) {
      if (i == k) continue;
      const Complex<Real> factor = m.factors[i];
      for (int j = (kInverse ? 0 : k + 1) + lane; j < n; j += 32) {
        const Complex<Real> product = multiply(factor, m.pivot_row[j]), old = m.entry(i, j);
        m.entry(i, j) =
            j == k ? Complex<Real>{-product[0], -product[1]} : Complex<Real>{old[0] - product[0], old[1] - product[1]};
      }
    }
  }
}

// log|det|, in every thread of warp 0. `scratch` has an entry for each warp.
template <typename Real> __device__ __forceinline__ double sum_log_abs_pivots(BlockMatrix<Real>& m, double* scratch) {
  double sum = 0;
  for (int k = threadIdx.x; k < m.n; k += kBlockThreads) sum += log_abs(m.pivots[k]);
  return block_sum<kBlockThreads>(sum, scratch);
}

// inv(A) = inv(E A) E: column j of what is there belongs where the row exchanges E bring it. One thread finds out.
template <typename Real> __device__ __forceinline__ void find_places(BlockMatrix<Real>& m) {
  for (int j = 0; j < m.n; ++j) m.place[j] = j;
  for (int k = 0; k < m.n; ++k) {
    const int place = m.place[k];
    m.place[k] = m.place[m.exchanged[k]];
    m.place[m.exchanged[k]] = place;
  }
}

}  // namespace led::circulant_logdet
