#include "circulant_logdet/eliminate.h"

#include <algorithm>

namespace led::circulant_logdet {
namespace {

// Lanes disagree about the best pivot row, and rows are exchanged under a mask, once for each distinct row. So that
// these are few, a lane takes a row that another lane wants if its entry there is at least this part of its largest.
constexpr float kAcceptable = 0.5f;

constexpr int kPanel = 4;                       // columns eliminated one by one
constexpr int kBlock = 16, kBlockFrom = 48;     // from this size on, the rest of the matrix is updated once a block
constexpr int kTileRows = 3, kTileColumns = 4;  // 24 accumulators of 32 registers

template <class Real> struct Complex {
  Vec<Real> re, im;
};
template <class Real> LED_INLINE Complex<Real> load_entry(const Real* p) { return {load(p), load(p + Lanes<Real>::count)}; }
template <class Real> LED_INLINE void store_entry(Real* p, Complex<Real> z) {
  store(p, z.re);
  store(p + Lanes<Real>::count, z.im);
}

// |re| + |im|, which over- and underflows no sooner than its parts.
template <class Real> LED_INLINE Vec<Real> magnitude(Complex<Real> z) {
  return (z.re < 0 ? -z.re : z.re) + (z.im < 0 ? -z.im : z.im);
}

// 1/z, and 0 for z = 0.
template <class Real> LED_INLINE Complex<Real> reciprocal(Complex<Real> z) {
  const Vec<Real> size = magnitude(z), scale = size == 0 ? size : 1 / size;
  const Vec<Real> x = z.re * scale, y = z.im * scale, square = x * x + y * y;
  const Vec<Real> factor = size == 0 ? size : scale / square;
  return {x * factor, -y * factor};
}

// Exchanges `vectors` consecutive vectors in the lanes of the mask.
template <class Real> LED_INLINE void exchange(Real* a, Real* b, int vectors, Mask<Real> mask) {
  for (int v = 0; v < vectors; ++v, a += Lanes<Real>::count, b += Lanes<Real>::count) {
    const Vec<Real> x = load(a), y = load(b);
    store(a, mask ? y : x);
    store(b, mask ? x : y);
  }
}

// Brings pivots for column k from rows k.., whose magnitudes are noted, to row k; moves columns [from, to) only.
template <class Real>
LED_INLINE void find_pivots(const LaneMatrix<Real>& m, int k, int from, int to, std::vector<Exchange<Real>>& exchanges) {
  const Vec<Real> here = load(m.magnitude(k));
  Vec<Real> largest = here;
  Mask<Real> where = Mask<Real>{} + k;
  for (int i = k + 1; i < m.n; ++i) {
    const Vec<Real> size = load(m.magnitude(i));
    where = size > largest ? Mask<Real>{} + i : where;
    largest = size > largest ? size : largest;
  }
  const Vec<Real> acceptable = largest * Real(kAcceptable);
  Mask<Real> open = here < acceptable;
  for (int lane; (lane = first_lane(open)) < m.lanes;) {
    const int row = int(where[lane]);
    const Mask<Real> mask = open & (load(m.magnitude(row)) >= acceptable);
    exchange(m.entry(k, from), m.entry(row, from), 2 * (to - from), mask);
    exchanges.emplace_back(mask, k, row);
    open &= ~mask;
  }
}

// row -= row[c] * scaled, row[c] itself counting as 0 where it is updated.
template <int kWidth, class Real> LED_INLINE void eliminate_row(Real* row, int c, const Complex<Real>* scaled) {
  constexpr int step = LaneMatrix<Real>::entry_size;
  const Complex<Real> factor = load_entry(row + c * step);
  store_entry<Real>(row + c * step, {Vec<Real>{}, Vec<Real>{}});
#pragma GCC unroll 4
  for (int j = 0; j < kWidth; ++j, row += step) {
    const Complex<Real> z = load_entry(row);
    store_entry<Real>(row, {z.re - factor.re * scaled[j].re + factor.im * scaled[j].im,
                            z.im - factor.re * scaled[j].im - factor.im * scaled[j].re});
  }
}

// Eliminates the kWidth columns from p on, within these columns.
template <int kWidth, class Real>
LED_INLINE void eliminate_panel(const LaneMatrix<Real>& m, Goal goal, int p, std::vector<Exchange<Real>>& exchanges) {
  constexpr int step = LaneMatrix<Real>::entry_size;
  for (int i = p; i < m.n; ++i) store(m.magnitude(i), magnitude(load_entry(m.entry(i, p))));
  for (int c = 0; c < kWidth; ++c) {
    const int k = p + c;
    find_pivots(m, k, p, p + kWidth, exchanges);
    const Complex<Real> pivot = load_entry(m.entry(k, k)), inverse = reciprocal(pivot);
    store_entry(m.pivot(k), pivot);
    Complex<Real> scaled[kWidth];
    for (int j = 0; j < kWidth; ++j) {
      const Complex<Real> z = load_entry(m.entry(k, p + j));
      scaled[j] = {z.re * inverse.re - z.im * inverse.im, z.re * inverse.im + z.im * inverse.re};
    }
    scaled[c] = inverse;
    if (goal == Goal::inverse) {
      for (int j = 0; j < kWidth; ++j) store_entry(m.entry(k, p + j), scaled[j]);
      for (int i = 0; i < k; ++i) eliminate_row<kWidth>(m.entry(i, p), c, scaled);
    }
    for (int i = k + 1; i < m.n; ++i) {
      Real* row = m.entry(i, p);
      eliminate_row<kWidth>(row, c, scaled);
      if (c + 1 < kWidth) store(m.magnitude(i), magnitude(load_entry(row + (c + 1) * step)));
    }
  }
}

// The kRows x kWidth entries at `a` += (kRows x depth at `left`) * (depth x kTileColumns at `right`).
template <int kRows, int kWidth, class Real>
LED_INLINE void multiply_tile(Real* a, const Real* left, int64_t stride, const Real* right, int depth) {
  constexpr int step = LaneMatrix<Real>::entry_size;
  Complex<Real> sum[kRows][kWidth];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int c = 0; c < kWidth; ++c) sum[r][c] = load_entry(a + r * stride + c * step);
  for (int k = 0; k < depth; ++k, left += step, right += kTileColumns * step) {
    Complex<Real> factor[kWidth];
#pragma GCC unroll 4
    for (int c = 0; c < kWidth; ++c) factor[c] = load_entry(right + c * step);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const Complex<Real> z = load_entry(left + r * stride);
#pragma GCC unroll 4
      for (int c = 0; c < kWidth; ++c) {
        sum[r][c].re += z.re * factor[c].re;
        sum[r][c].im += z.re * factor[c].im;
        sum[r][c].re -= z.im * factor[c].im;
        sum[r][c].im += z.im * factor[c].re;
      }
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int c = 0; c < kWidth; ++c) store_entry(a + r * stride + c * step, sum[r][c]);
}

template <int kWidth, class Real>
LED_INLINE void multiply_columns(const LaneMatrix<Real>& m, int first_row, int p, int q, int j, const Real* right) {
  const int64_t stride = m.row_stride();
  int i = first_row;
  for (; i + kTileRows <= m.n; i += kTileRows)
    multiply_tile<kTileRows, kWidth>(m.entry(i, j), m.entry(i, p), stride, right, q - p);
  if (m.n - i == 2) multiply_tile<2, kWidth>(m.entry(i, j), m.entry(i, p), stride, right, q - p);
  if (m.n - i == 1) multiply_tile<1, kWidth>(m.entry(i, j), m.entry(i, p), stride, right, q - p);
}

// Applies the elimination of columns [p, q) and its exchanges to columns [from, to).
template <class Real>
LED_INLINE void apply_elimination(const LaneMatrix<Real>& m, Goal goal, int p, int q, const Exchange<Real>* begin,
                                  const Exchange<Real>* end, int from, int to) {
  constexpr int step = LaneMatrix<Real>::entry_size;
  alignas(64) Real right[kBlock * kTileColumns * step];
  const int first_row = goal == Goal::inverse ? 0 : q;
  for (int j = from; j < to; j += kTileColumns) {
    const int width = std::min(kTileColumns, to - j);
    for (const Exchange<Real>* x = begin; x != end; ++x) exchange(m.entry(x->row, j), m.entry(x->with, j), 2 * width, x->lanes());
    for (int k = p; k < q; ++k) {
      std::memcpy(right + (k - p) * kTileColumns * step, m.entry(k, j), width * step * sizeof(Real));
      if (goal == Goal::inverse) std::memset(m.entry(k, j), 0, width * step * sizeof(Real));
    }
    switch (width) {
      case 1: multiply_columns<1>(m, first_row, p, q, j, right); break;
      case 2: multiply_columns<2>(m, first_row, p, q, j, right); break;
      case 3: multiply_columns<3>(m, first_row, p, q, j, right); break;
      default: multiply_columns<4>(m, first_row, p, q, j, right);
    }
  }
}

// inv(A) = inv(E A) E for the row exchanges E.
template <class Real> LED_INLINE void exchange_columns(const LaneMatrix<Real>& m, const std::vector<Exchange<Real>>& exchanges) {
  for (int i = 0; i < m.n; ++i)
    for (auto x = exchanges.rbegin(); x != exchanges.rend(); ++x) exchange(m.entry(i, x->row), m.entry(i, x->with), 2, x->lanes());
}

// One plain function a type, since target_clones does not apply to templates.
#define LED_KERNELS(Real)                                                                                              \
  LED_MULTIVERSION void panel(const LaneMatrix<Real>& m, Goal goal, int p, int q, std::vector<Exchange<Real>>& xs) {  \
    switch (q - p) {                                                                                                  \
      case 1: return eliminate_panel<1>(m, goal, p, xs);                                                              \
      case 2: return eliminate_panel<2>(m, goal, p, xs);                                                              \
      case 3: return eliminate_panel<3>(m, goal, p, xs);                                                              \
      default: return eliminate_panel<4>(m, goal, p, xs);                                                             \
    }                                                                                                                 \
  }                                                                                                                   \
  LED_MULTIVERSION void apply(const LaneMatrix<Real>& m, Goal goal, int p, int q, const Exchange<Real>* begin,        \
                              const Exchange<Real>* end, int from, int to) {                                          \
    apply_elimination(m, goal, p, q, begin, end, from, to);                                                           \
  }                                                                                                                   \
  LED_MULTIVERSION void restore_columns(const LaneMatrix<Real>& m, const std::vector<Exchange<Real>>& xs) {           \
    exchange_columns(m, xs);                                                                                          \
  }
LED_KERNELS(float)
LED_KERNELS(double)
#undef LED_KERNELS

}  // namespace

template <class Real> void eliminate(const LaneMatrix<Real>& m, Goal goal, std::vector<Exchange<Real>>& exchanges) {
  const int n = m.n, block = n >= kBlockFrom ? kBlock : kPanel;
  const bool inverse = goal == Goal::inverse;
  exchanges.clear();
  for (int begin = 0; begin < n; begin += block) {
    const int end = std::min(begin + block, n);
    const size_t first = exchanges.size();
    const auto update = [&](int p, int q, size_t first_exchange, int from, int to) {
      if (from < to) apply(m, goal, p, q, exchanges.data() + first_exchange, exchanges.data() + exchanges.size(), from, to);
    };
    for (int p = begin; p < end; p += kPanel) {
      const int q = std::min(p + kPanel, end);
      const size_t first_of_panel = exchanges.size();
      panel(m, goal, p, q, exchanges);
      if (inverse || end < n) update(p, q, first_of_panel, begin, p);
      update(p, q, first_of_panel, q, end);
    }
    if (inverse) update(begin, end, first, 0, begin);
    update(begin, end, first, end, n);
  }
  if (inverse) restore_columns(m, exchanges);
}

template void eliminate(const LaneMatrix<float>&, Goal, std::vector<Exchange<float>>&);
template void eliminate(const LaneMatrix<double>&, Goal, std::vector<Exchange<double>>&);

}  // namespace led::circulant_logdet
