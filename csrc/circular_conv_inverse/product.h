// Products of complex matrices whose columns are SIMD lanes: all of one row's real parts, then its imaginary parts.
#pragma once
#include "circulant_logdet/lanes.h"

namespace led::circular_conv_inverse {

using namespace circulant_logdet;

// Rows of vectors: entry (row, column) stands at data + row * stride + column, its imaginary part `imaginary` after it.
template <class R> struct Rows {
  R* data;
  int64_t stride, imaginary;
};
// Entries that are broadcast, (row, k) at data + row * row_stride + k * k_stride.
template <class R> struct Scalars {
  const R* data;
  int64_t row_stride, k_stride, imaginary;
};

enum class Entries {
  complex,
  conjugate,  // of the left factor
  real        // in both factors: imaginary parts are 0 and are not read
};

// out = left right, in kRows rows and kVectors vectors of columns.
template <int kRows, int kVectors, Entries kEntries, class S>
LED_INLINE void multiply_tile(const Real<S>* left, const Scalars<Real<S>>& l, const Real<S>* right,
                              int64_t right_stride, int64_t right_imaginary, int64_t depth, Real<S>* out,
                              int64_t out_stride, int64_t out_imaginary) {
  constexpr int lanes = S::lanes;
  Vec<S> re[kRows][kVectors] = {}, im[kRows][kVectors] = {};
  for (int64_t k = 0; k < depth; ++k, left += l.k_stride, right += right_stride) {
    Vec<S> x[kVectors], y[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      x[v] = load<S>(right + v * lanes);
      if (kEntries != Entries::real) y[v] = load<S>(right + right_imaginary + v * lanes);
    }
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) {
      const Real<S> a = left[r * l.row_stride];
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) re[r][v] += x[v] * a;
      if (kEntries == Entries::real) continue;
      const Real<S> b = left[r * l.row_stride + l.imaginary];
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        im[r][v] += y[v] * a;
        if (kEntries == Entries::conjugate) {
          re[r][v] += y[v] * b;
          im[r][v] -= x[v] * b;
        } else {
          re[r][v] -= y[v] * b;
          im[r][v] += x[v] * b;
        }
      }
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      store<S>(out + r * out_stride + v * lanes, re[r][v]);
      store<S>(out + r * out_stride + out_imaginary + v * lanes, im[r][v]);
    }
}

// Tiles of so many rows, from row `first` on; returns the row after the last tile.
template <int kRows, int kVectors, Entries kEntries, class S>
LED_INLINE int64_t multiply_rows(const Scalars<Real<S>>& left, int64_t first, int64_t rows, int64_t depth,
                                 const Rows<Real<S>>& right, const Rows<Real<S>>& out, int64_t column) {
  for (; first + kRows <= rows; first += kRows)
    multiply_tile<kRows, kVectors, kEntries, S>(left.data + first * left.row_stride, left, right.data + column,
                                                right.stride, right.imaginary, depth,
                                                out.data + first * out.stride + column, out.stride, out.imaginary);
  return first;
}

template <int kVectors, Entries kEntries, class S>
LED_INLINE void multiply_columns(const Scalars<Real<S>>& left, int64_t rows, int64_t depth, const Rows<Real<S>>& right,
                                 const Rows<Real<S>>& out, int64_t column) {
  constexpr bool wide = S::bytes == kWideBytes;  // the sums fill 24 of 32 registers, or 8 of 16
  int64_t row = multiply_rows<wide ? 6 : 2, kVectors, kEntries, S>(left, 0, rows, depth, right, out, column);
  row = multiply_rows<wide ? 4 : 2, kVectors, kEntries, S>(left, row, rows, depth, right, out, column);
  multiply_rows<1, kVectors, kEntries, S>(left, row, rows, depth, right, out, column);
}

// out = left right, of so many rows and columns; whole vectors of columns are read and written.
template <Entries kEntries, class S>
LED_INLINE void multiply(const Scalars<Real<S>>& left, int64_t rows, int64_t depth, int64_t columns,
                         const Rows<Real<S>>& right, const Rows<Real<S>>& out) {
  constexpr int lanes = S::lanes;
  int64_t c = 0;
  for (; c + lanes < columns; c += 2 * lanes) multiply_columns<2, kEntries, S>(left, rows, depth, right, out, c);
  if (c < columns) multiply_columns<1, kEntries, S>(left, rows, depth, right, out, c);
}

}  // namespace led::circular_conv_inverse
