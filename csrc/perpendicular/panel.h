// The inner product of the CPU kernels: a tile of kRows x kColumns results that stay in registers.
#pragma once
#include <algorithm>
#include <cstdint>
#include <memory>

#include "common/multiversion.h"

namespace led::perpendicular {

// A GCC/Clang vector, by default of one AVX2 register. Longer ones than the machine's registers would go through
// memory.
template <class T, int bytes = 32> struct VectorOf {
  typedef T type __attribute__((vector_size(bytes)));
  typedef T unaligned __attribute__((vector_size(bytes), aligned(sizeof(T)), may_alias));
};
template <class T> using Vector = typename VectorOf<T>::type;
template <class T> constexpr int kLanes = 32 / sizeof(T);

// The vector at p, which needs no alignment. Not to be bound to a Vector<T>&, which does.
template <int bytes = 32, class T> LED_INLINE auto& at(const T* p) {
  return *reinterpret_cast<const typename VectorOf<T, bytes>::unaligned*>(p);
}
template <int bytes = 32, class T> LED_INLINE auto& at(T* p) {
  return *reinterpret_cast<typename VectorOf<T, bytes>::unaligned*>(p);
}

constexpr int kRows = 8;
template <class T> constexpr int64_t kColumns = 6 * kLanes<T>;

constexpr int64_t divide_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit; }

// Memory that is not initialised.
template <class T> std::unique_ptr<T[]> allocate(int64_t n) { return std::unique_ptr<T[]>(new T[n]); }

// How a factor's rows lie: [k][kRows] with kRows adjacent rows, or one row after the other.
enum class Rows { kAdjacent, kApart };

// count x vectors results in as many registers of so many bytes.
template <class T, int bytes, Rows rows, int count, int vectors, bool accumulate>
LED_INLINE void registers_product(int64_t depth, const T* a, int64_t a_stride, const T* b, T* out) {
  using Wide = typename VectorOf<T, bytes>::type;
  constexpr int lanes = bytes / sizeof(T);
  Wide sum[count][vectors];
#pragma GCC unroll 8
  for (int r = 0; r < count; ++r)
#pragma GCC unroll 3
    for (int v = 0; v < vectors; ++v) sum[r][v] = accumulate ? at<bytes>(out + r * kColumns<T> + v * lanes) : Wide{};
  for (int64_t k = 0; k < depth; ++k, a += rows == Rows::kAdjacent ? a_stride : 1, b += kColumns<T>) {
    Wide row[vectors];
#pragma GCC unroll 3
    for (int v = 0; v < vectors; ++v) row[v] = at<bytes>(b + v * lanes);
#pragma GCC unroll 8
    for (int r = 0; r < count; ++r)
#pragma GCC unroll 3
      for (int v = 0; v < vectors; ++v) sum[r][v] += a[rows == Rows::kAdjacent ? r : r * a_stride] * row[v];
  }
#pragma GCC unroll 8
  for (int r = 0; r < count; ++r)
#pragma GCC unroll 3
    for (int v = 0; v < vectors; ++v) at<bytes>(out + r * kColumns<T> + v * lanes) = sum[r][v];
}

// Whether there are 32 registers of 64 bytes; else 16 of 32 are assumed.
inline const bool kWideRegisters = [] {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return bool(__builtin_cpu_supports("x86-64-v4"));
#else
  return false;
#endif
}();

// A third, two thirds or all of the columns.
template <class T, Rows rows, int thirds, bool accumulate>
LED_INLINE void panel_product_of(int64_t depth, const T* a, int64_t a_stride, const T* b, T* out) {
  if (kWideRegisters) return registers_product<T, 64, rows, kRows, thirds, accumulate>(depth, a, a_stride, b, out);
  constexpr int half = kRows / 2;
  for (int r = 0; r < kRows; r += half)
    for (int64_t c = 0; c < thirds * kColumns<T> / 3; c += 2 * kLanes<T>)
      registers_product<T, 32, rows, half, 2, accumulate>(depth, a + (rows == Rows::kAdjacent ? r : r * a_stride),
                                                          a_stride, b + c, out + r * kColumns<T> + c);
}

// out[r][c] (+)= Σ_k a(k, r) b[k kColumns + c] for kRows rows and `columns` <= kColumns columns, where a(k, r) is
// a[k a_stride + r] for adjacent rows and a[r a_stride + k] for others.
template <class T, Rows rows = Rows::kAdjacent, bool accumulate = false>
LED_INLINE void panel_product(int64_t depth, const T* a, int64_t a_stride, const T* b, int64_t columns, T* out) {
  constexpr int64_t third = kColumns<T> / 3;
  if (columns > 2 * third) panel_product_of<T, rows, 3, accumulate>(depth, a, a_stride, b, out);
  else if (columns > third) panel_product_of<T, rows, 2, accumulate>(depth, a, a_stride, b, out);
  else panel_product_of<T, rows, 1, accumulate>(depth, a, a_stride, b, out);
}

}  // namespace led::perpendicular
