#include "circulant_logdet/eliminate.h"

#include <algorithm>

namespace led::circulant_logdet {
namespace {

// Lanes disagree about the best pivot row, and rows are exchanged under a mask, once for each distinct row. So that
// these are few, a lane takes a row that another lane wants if its entry there is at least this part of its largest.
constexpr float kAcceptable = 0.5f;

constexpr int kPanel = 4;                       // columns eliminated one by one
constexpr int kBlock = 16, kBlockFrom = 24;     // from this size on, the rest of the matrix is updated once a block
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

// Vectors of one row (or of one column, `stride` apart) that stay in registers while they are exchanged with others.
template <int kCount, class Real> struct HeldVectors {
  Vec<Real> values[kCount];

  LED_INLINE HeldVectors(const Real* from, int64_t stride) {
#pragma GCC unroll 8
    for (int v = 0; v < kCount; ++v) values[v] = load(from + v * stride);
  }
  LED_INLINE void exchange(Real* with, int64_t stride, Mask<Real> mask) {
#pragma GCC unroll 8
    for (int v = 0; v < kCount; ++v) {
      const Vec<Real> other = load(with + v * stride);
      store(with + v * stride, mask ? values[v] : other);
      values[v] = mask ? other : values[v];
    }
  }
  LED_INLINE void store_back(Real* to, int64_t stride) const {
#pragma GCC unroll 8
    for (int v = 0; v < kCount; ++v) store(to + v * stride, values[v]);
  }
};

// Brings pivots for column k from rows k.., whose magnitudes are noted, to row k, in columns [p, p + kWidth) only.
template <int kWidth, class Real>
LED_INLINE void find_pivots(const LaneMatrix<Real>& m, int k, int p, std::vector<Exchange<Real>>& exchanges) {
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
  HeldVectors<2 * kWidth, Real> held(m.entry(k, p), m.lanes);
  for (int lane; (lane = first_lane(open)) < m.lanes;) {
    const int row = int(where[lane]);
    const Mask<Real> mask = open & (load(m.magnitude(row)) >= acceptable);
    held.exchange(m.entry(row, p), m.lanes, mask);
    exchanges.emplace_back(mask, k, row);
    open &= ~mask;
  }
  held.store_back(m.entry(k, p), m.lanes);
}

// row -= row[c] * scaled, row[c] itself counting as 0 where it is updated.
template <int kWidth, class Real> LED_INLINE void eliminate_row(Real* row, int c, const Complex<Real>* scaled) {
  constexpr int step = LaneMatrix<Real>::entry_size;
  const Complex<Real> factor = load_entry(row + c * step);
#pragma GCC unroll 4
  for (int j = 0; j < kWidth; ++j, row += step) {
    const Complex<Real> z = j == c ? Complex<Real>{Vec<Real>{}, Vec<Real>{}} : load_entry(row);
    store_entry<Real>(row, {z.re - factor.re * scaled[j].re + factor.im * scaled[j].im,
                            z.im - factor.re * scaled[j].im - factor.im * scaled[j].re});
  }
}

// Eliminates the kWidth columns from p on, within these columns.
template <int kWidth, class Real>
LED_INLINE void eliminate_panel(const LaneMatrix<Real>& m, Goal goal, int p, std::vector<Exchange<Real>>& exchanges) {
  constexpr int step = LaneMatrix<Real>::entry_size;
  for (int i = p; i < m.n; ++i) store(m.magnitude(i), magnitude(load_entry(m.entry(i, p))));
#pragma GCC unroll 4  // so that c is a constant
  for (int c = 0; c < kWidth; ++c) {
    const int k = p + c;
    find_pivots<kWidth>(m, k, p, exchanges);
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

// The kRows x kWidth entries at `a` += (kRows x depth at `left`) * (depth x kWidth at `right`).
template <int kRows, int kWidth, class Real>
LED_INLINE void multiply_tile(Real* a, const Real* left, int64_t stride, const Real* right, int depth) {
  constexpr int step = LaneMatrix<Real>::entry_size;
  Complex<Real> sum[kRows][kWidth];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int c = 0; c < kWidth; ++c) sum[r][c] = load_entry(a + r * stride + c * step);
  for (int k = 0; k < depth; ++k, left += step, right += kWidth * step) {
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

// The exchanges, in order, in columns [j, j + kWidth). Those of one row follow each other: it stays in registers.
template <int kWidth, class Real>
LED_INLINE void exchange_rows(const LaneMatrix<Real>& m, const Exchange<Real>* begin, const Exchange<Real>* end, int j) {
  for (const Exchange<Real>* x = begin; x != end;) {
    Real* row = m.entry(x->row, j);
    HeldVectors<2 * kWidth, Real> held(row, m.lanes);
    for (const int k = x->row; x != end && x->row == k; ++x) held.exchange(m.entry(x->with, j), m.lanes, x->lanes());
    held.store_back(row, m.lanes);
  }
}

// Applies the elimination of columns [p, q) and its exchanges to columns [j, j + kWidth).
template <int kWidth, class Real>
LED_INLINE void update_columns(const LaneMatrix<Real>& m, Goal goal, int p, int q, const Exchange<Real>* begin,
                               const Exchange<Real>* end, int j) {
  constexpr int step = LaneMatrix<Real>::entry_size;
  alignas(64) Real right[kBlock * kWidth * step];
  exchange_rows<kWidth>(m, begin, end, j);
  for (int k = p; k < q; ++k) {
    std::memcpy(right + (k - p) * kWidth * step, m.entry(k, j), kWidth * step * sizeof(Real));
    if (goal == Goal::inverse) std::memset(m.entry(k, j), 0, kWidth * step * sizeof(Real));
  }
  const int64_t stride = m.row_stride();
  int i = goal == Goal::inverse ? 0 : q;
  for (; i + kTileRows <= m.n; i += kTileRows)
    multiply_tile<kTileRows, kWidth>(m.entry(i, j), m.entry(i, p), stride, right, q - p);
  if (m.n - i == 2) multiply_tile<2, kWidth>(m.entry(i, j), m.entry(i, p), stride, right, q - p);
  if (m.n - i == 1) multiply_tile<1, kWidth>(m.entry(i, j), m.entry(i, p), stride, right, q - p);
}

template <class Real>
LED_INLINE void apply_elimination(const LaneMatrix<Real>& m, Goal goal, int p, int q, const Exchange<Real>* begin,
                                  const Exchange<Real>* end, int from, int to) {
  int j = from;
  for (; j + kTileColumns <= to; j += kTileColumns) update_columns<kTileColumns>(m, goal, p, q, begin, end, j);
  switch (to - j) {
    case 1: return update_columns<1>(m, goal, p, q, begin, end, j);
    case 2: return update_columns<2>(m, goal, p, q, begin, end, j);
    case 3: return update_columns<3>(m, goal, p, q, begin, end, j);
  }
}

// inv(A) = inv(E A) E for the row exchanges E: they are done again, to columns, backwards. Rows [i, i + kRows).
template <int kRows, class Real>
LED_INLINE void exchange_columns(const LaneMatrix<Real>& m, const std::vector<Exchange<Real>>& exchanges, int i) {
  for (auto x = exchanges.rbegin(); x != exchanges.rend();) {
    const int k = x->row;
    HeldVectors<kRows, Real> re(m.entry(i, k), m.row_stride()), im(m.entry(i, k) + m.lanes, m.row_stride());
    for (; x != exchanges.rend() && x->row == k; ++x) {
      const Mask<Real> mask = x->lanes();
      re.exchange(m.entry(i, x->with), m.row_stride(), mask);
      im.exchange(m.entry(i, x->with) + m.lanes, m.row_stride(), mask);
    }
    re.store_back(m.entry(i, k), m.row_stride());
    im.store_back(m.entry(i, k) + m.lanes, m.row_stride());
  }
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
    int i = 0;                                                                                                        \
    for (; i + 4 <= m.n; i += 4) exchange_columns<4>(m, xs, i);                                                       \
    for (; i < m.n; ++i) exchange_columns<1>(m, xs, i);                                                               \
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
