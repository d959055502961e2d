// The inner product of the CPU kernels: a tile of kRows x kColumns results that stay in registers.
#pragma once
#include <algorithm>
#include <cstdint>
#include <memory>

#include "common/multiversion.h"

namespace led::perpendicular {

// A GCC/Clang vector of one 512-bit register, which the compiler splits where the machine's registers are shorter.
template <class T> struct VectorOf {
  typedef T type __attribute__((vector_size(64)));
  typedef T unaligned __attribute__((vector_size(64), aligned(sizeof(T)), may_alias));
};
template <class T> using Vector = typename VectorOf<T>::type;
template <class T> constexpr int kLanes = 64 / sizeof(T);

// The vector at p, which needs no alignment. Not to be bound to a Vector<T>&, which does.
template <class T> LED_INLINE auto& at(const T* p) { return *reinterpret_cast<const typename VectorOf<T>::unaligned*>(p); }
template <class T> LED_INLINE auto& at(T* p) { return *reinterpret_cast<typename VectorOf<T>::unaligned*>(p); }

constexpr int kRows = 8, kVectors = 3;  // 24 accumulators of AVX-512's 32 registers
template <class T> constexpr int64_t kColumns = kVectors * kLanes<T>;

constexpr int64_t divide_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit; }

// Memory that is not initialised.
template <class T> std::unique_ptr<T[]> allocate(int64_t n) { return std::unique_ptr<T[]>(new T[n]); }

// How a factor's rows lie: [k][kRows] with kRows adjacent rows, or one row after the other.
enum class Rows { kAdjacent, kApart };

template <class T, Rows rows, int vectors, bool accumulate>
LED_INLINE void panel_product_of(int64_t depth, const T* a, int64_t a_stride, const T* b, T* out) {
  Vector<T> sum[kRows][vectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 3
    for (int v = 0; v < vectors; ++v) sum[r][v] = accumulate ? at(out + r * kColumns<T> + v * kLanes<T>) : Vector<T>{};
  for (int64_t k = 0; k < depth; ++k, a += rows == Rows::kAdjacent ? a_stride : 1, b += kColumns<T>) {
    Vector<T> row[vectors];
#pragma GCC unroll 3
    for (int v = 0; v < vectors; ++v) row[v] = at(b + v * kLanes<T>);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 3
      for (int v = 0; v < vectors; ++v) sum[r][v] += a[rows == Rows::kAdjacent ? r : r * a_stride] * row[v];
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 3
    for (int v = 0; v < vectors; ++v) at(out + r * kColumns<T> + v * kLanes<T>) = sum[r][v];
}

// out[r][c] (+)= Σ_k a(k, r) b[k kColumns + c] for kRows rows and `columns` <= kColumns columns, where a(k, r) is
// a[k a_stride + r] for adjacent rows and a[r a_stride + k] for others.
template <class T, Rows rows = Rows::kAdjacent, bool accumulate = false>
LED_INLINE void panel_product(int64_t depth, const T* a, int64_t a_stride, const T* b, int64_t columns, T* out) {
  if (columns > 2 * kLanes<T>) panel_product_of<T, rows, 3, accumulate>(depth, a, a_stride, b, out);
  else if (columns > kLanes<T>) panel_product_of<T, rows, 2, accumulate>(depth, a, a_stride, b, out);
  else panel_product_of<T, rows, 1, accumulate>(depth, a, a_stride, b, out);
}

}  // namespace led::perpendicular
