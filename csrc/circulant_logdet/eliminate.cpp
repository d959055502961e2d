#include "circulant_logdet/eliminate.h"

#include <algorithm>

namespace led::circulant_logdet {
namespace {

// Lanes disagree about the best pivot row, and rows are exchanged under a mask, once for each distinct row. So that
// these are few, a lane takes a row that another lane wants if its entry there is at least this part of its largest.
// Inverses lose more digits by it than determinants do.
constexpr float acceptable(Goal goal) {
  return goal == Goal::accurate_inverse ? 1.0f : goal == Goal::inverse ? 0.5f : 0.3f;
}

constexpr int kBlock = 16, kBlockFrom = 24;  // from this size on, the rest of the matrix is updated once a block

constexpr int kPanel = 4;  // columns eliminated one by one

// The tile of a product whose sums stay in registers: 24 of 32 with AVX-512, 8 of 16 else.
template <class S> constexpr int kTileRows = S::bytes == kWideBytes ? 3 : 2;
template <class S> constexpr int kTileColumns = S::bytes == kWideBytes ? 4 : 2;

template <class S> struct Complex {
  Vec<S> re, im;
};
template <class S> LED_INLINE Complex<S> load_entry(const Real<S>* p) { return {load<S>(p), load<S>(p + S::lanes)}; }
template <class S> LED_INLINE void store_entry(Real<S>* p, Complex<S> z) {
  store<S>(p, z.re);
  store<S>(p + S::lanes, z.im);
}

// |re| + |im|, which over- and underflows no sooner than its parts.
template <class S> LED_INLINE Vec<S> magnitude(Complex<S> z) {
  return (z.re < 0 ? -z.re : z.re) + (z.im < 0 ? -z.im : z.im);
}

// 1/z, and 0 for z = 0.
template <class S> LED_INLINE Complex<S> reciprocal(Complex<S> z) {
  const Vec<S> size = magnitude(z), scale = size == 0 ? size : 1 / size;
  const Vec<S> x = z.re * scale, y = z.im * scale, square = x * x + y * y;
  const Vec<S> factor = size == 0 ? size : scale / square;
  return {x * factor, -y * factor};
}

// Vectors of one row (or of one column, `stride` apart) that stay in registers while they are exchanged with others.
template <int kCount, class S> struct HeldVectors {
  Vec<S> values[kCount];

  LED_INLINE HeldVectors(const Real<S>* from, int64_t stride) {
#pragma GCC unroll 8
    for (int v = 0; v < kCount; ++v) values[v] = load<S>(from + v * stride);
  }
  LED_INLINE void exchange(Real<S>* with, int64_t stride, Mask<S> mask) {
#pragma GCC unroll 8
    for (int v = 0; v < kCount; ++v) {
      const Vec<S> other = load<S>(with + v * stride);
      store<S>(with + v * stride, mask ? values[v] : other);
      values[v] = mask ? other : values[v];
    }
  }
  LED_INLINE void store_back(Real<S>* to, int64_t stride) const {
#pragma GCC unroll 8
    for (int v = 0; v < kCount; ++v) store<S>(to + v * stride, values[v]);
  }
};

// Notes the magnitudes of one column's entries, and the largest.
template <class S> struct PivotSearch {
  Vec<S> largest;
  Mask<S> where;

  LED_INLINE explicit PivotSearch(int first_row) : largest(Vec<S>{} - 1), where(Mask<S>{} + first_row) {}
  LED_INLINE void see(const LaneMatrix<S>& m, int row, const Real<S>* entry) {
    const Vec<S> size = magnitude(load_entry<S>(entry));
    store<S>(m.magnitude(row), size);
    where = size > largest ? Mask<S>{} + row : where;
    largest = size > largest ? size : largest;
  }
};

// Brings the pivots found for column k from rows k.. to row k, in columns [p, p + kWidth) only.
template <int kWidth, class S>
LED_INLINE void exchange_pivots(const LaneMatrix<S>& m, Goal goal, int k, int p, const PivotSearch<S>& found,
                                std::vector<Exchange<S>>& exchanges) {
  const Vec<S> enough = found.largest * Real<S>(acceptable(goal));
  Mask<S> open = load<S>(m.magnitude(k)) < enough;
  HeldVectors<2 * kWidth, S> held(m.entry(k, p), m.lanes);
  for (int lane; (lane = first_lane<S>(open)) < m.lanes;) {
    const int row = int(found.where[lane]);
    const Mask<S> mask = open & (load<S>(m.magnitude(row)) >= enough);
    held.exchange(m.entry(row, p), m.lanes, mask);
    exchanges.emplace_back(mask, k, row);
    open &= ~mask;
  }
  held.store_back(m.entry(k, p), m.lanes);
}

// row -= row[c] * scaled, row[c] itself counting as 0 where it is updated.
template <int kWidth, class S> LED_INLINE void eliminate_row(Real<S>* row, int c, const Complex<S>* scaled) {
  constexpr int step = LaneMatrix<S>::entry_size;
  const Complex<S> factor = load_entry<S>(row + c * step);
#pragma GCC unroll 4
  for (int j = 0; j < kWidth; ++j, row += step) {
    const Complex<S> z = j == c ? Complex<S>{Vec<S>{}, Vec<S>{}} : load_entry<S>(row);
    store_entry<S>(row, {z.re - factor.re * scaled[j].re + factor.im * scaled[j].im,
                         z.im - factor.re * scaled[j].im - factor.im * scaled[j].re});
  }
}

// Eliminates the kWidth columns from p on, within these columns.
template <int kWidth, class S>
LED_INLINE void eliminate_panel(const LaneMatrix<S>& m, Goal goal, int p, std::vector<Exchange<S>>& exchanges) {
  PivotSearch<S> search(p);
  for (int i = p; i < m.n; ++i) search.see(m, i, m.entry(i, p));
#pragma GCC unroll 4  // so that c is a constant
  for (int c = 0; c < kWidth; ++c) {
    const int k = p + c;
    exchange_pivots<kWidth>(m, goal, k, p, search, exchanges);
    const Complex<S> pivot = load_entry<S>(m.entry(k, k)), inverse = reciprocal(pivot);
    store_entry<S>(m.pivot(k), pivot);
    Complex<S> scaled[kWidth];
    for (int j = 0; j < kWidth; ++j) {
      const Complex<S> z = load_entry<S>(m.entry(k, p + j));
      scaled[j] = {z.re * inverse.re - z.im * inverse.im, z.re * inverse.im + z.im * inverse.re};
    }
    scaled[c] = inverse;
    if (goal != Goal::determinant) {
      for (int j = 0; j < kWidth; ++j) store_entry<S>(m.entry(k, p + j), scaled[j]);
      for (int i = 0; i < k; ++i) eliminate_row<kWidth, S>(m.entry(i, p), c, scaled);
    }
    search = PivotSearch<S>(k + 1);
    for (int i = k + 1; i < m.n; ++i) {
      eliminate_row<kWidth, S>(m.entry(i, p), c, scaled);
      if (c + 1 < kWidth) search.see(m, i, m.entry(i, p + c + 1));
    }
  }
}

// The kRows x kWidth entries at `a` += (kRows x depth at `left`) * (depth x kWidth at `right`).
template <int kRows, int kWidth, class S>
LED_INLINE void multiply_tile(Real<S>* a, const Real<S>* left, int64_t stride, const Real<S>* right, int depth) {
  constexpr int step = LaneMatrix<S>::entry_size;
  Complex<S> sum[kRows][kWidth];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int c = 0; c < kWidth; ++c) sum[r][c] = load_entry<S>(a + r * stride + c * step);
  for (int k = 0; k < depth; ++k, left += step, right += kWidth * step) {
    Complex<S> factor[kWidth];
#pragma GCC unroll 4
    for (int c = 0; c < kWidth; ++c) factor[c] = load_entry<S>(right + c * step);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const Complex<S> z = load_entry<S>(left + r * stride);
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
    for (int c = 0; c < kWidth; ++c) store_entry<S>(a + r * stride + c * step, sum[r][c]);
}

// The exchanges, in order, in columns [j, j + kWidth). Those of one row follow each other: it stays in registers.
template <int kWidth, class S>
LED_INLINE void exchange_rows(const LaneMatrix<S>& m, const Exchange<S>* begin, const Exchange<S>* end, int j) {
  for (const Exchange<S>* x = begin; x != end;) {
    Real<S>* row = m.entry(x->row, j);
    HeldVectors<2 * kWidth, S> held(row, m.lanes);
    for (const int k = x->row; x != end && x->row == k; ++x) held.exchange(m.entry(x->with, j), m.lanes, x->lanes());
    held.store_back(row, m.lanes);
  }
}

// Applies the elimination of columns [p, q) and its exchanges to columns [j, j + kWidth).
template <int kWidth, class S>
LED_INLINE void update_columns(const LaneMatrix<S>& m, Goal goal, int p, int q, const Exchange<S>* begin,
                               const Exchange<S>* end, int j) {
  constexpr int step = LaneMatrix<S>::entry_size;
  alignas(64) Real<S> right[kBlock * kWidth * step];
  exchange_rows<kWidth>(m, begin, end, j);
  for (int k = p; k < q; ++k) {
    std::memcpy(right + (k - p) * kWidth * step, m.entry(k, j), kWidth * step * sizeof(Real<S>));
    if (goal != Goal::determinant) std::memset(m.entry(k, j), 0, kWidth * step * sizeof(Real<S>));
  }
  const int64_t stride = m.row_stride();
  int i = goal != Goal::determinant ? 0 : q;
  constexpr int rows = kTileRows<S>;
  for (; i + rows <= m.n; i += rows) multiply_tile<rows, kWidth, S>(m.entry(i, j), m.entry(i, p), stride, right, q - p);
  for (; i < m.n; ++i) multiply_tile<1, kWidth, S>(m.entry(i, j), m.entry(i, p), stride, right, q - p);
}

template <class S>
LED_INLINE void apply_elimination(const LaneMatrix<S>& m, Goal goal, int p, int q, const Exchange<S>* begin,
                                  const Exchange<S>* end, int from, int to) {
  constexpr int columns = kTileColumns<S>;
  int j = from;
  for (; j + columns <= to; j += columns) update_columns<columns>(m, goal, p, q, begin, end, j);
  for (; j + 2 <= to; j += 2) update_columns<2>(m, goal, p, q, begin, end, j);
  if (j < to) update_columns<1>(m, goal, p, q, begin, end, j);
}

// inv(A) = inv(E A) E for the row exchanges E: they are done again, to columns, backwards. Rows [i, i + kRows).
template <int kRows, class S>
LED_INLINE void exchange_columns(const LaneMatrix<S>& m, const std::vector<Exchange<S>>& exchanges, int i) {
  for (auto x = exchanges.rbegin(); x != exchanges.rend();) {
    const int k = x->row;
    HeldVectors<kRows, S> re(m.entry(i, k), m.row_stride()), im(m.entry(i, k) + m.lanes, m.row_stride());
    for (; x != exchanges.rend() && x->row == k; ++x) {
      const Mask<S> mask = x->lanes();
      re.exchange(m.entry(i, x->with), m.row_stride(), mask);
      im.exchange(m.entry(i, x->with) + m.lanes, m.row_stride(), mask);
    }
    re.store_back(m.entry(i, k), m.row_stride());
    im.store_back(m.entry(i, k) + m.lanes, m.row_stride());
  }
}

// Plain functions, since target_clones does not apply to templates.
#define LED_KERNELS(S, TARGET)                                                                                         \
  TARGET void panel(const LaneMatrix<S>& m, Goal goal, int p, int q, std::vector<Exchange<S>>& exchanges) {            \
    if (q - p == kPanel) eliminate_panel<kPanel>(m, goal, p, exchanges);                                               \
    else eliminate_panel<1>(m, goal, p, exchanges);                                                                    \
  }                                                                                                                    \
  TARGET void apply(const LaneMatrix<S>& m, Goal goal, int p, int q, const Exchange<S>* begin, const Exchange<S>* end, \
                    int from, int to) {                                                                                \
    apply_elimination(m, goal, p, q, begin, end, from, to);                                                            \
  }                                                                                                                    \
  TARGET void restore_columns(const LaneMatrix<S>& m, const std::vector<Exchange<S>>& exchanges) {                     \
    int i = 0;                                                                                                         \
    for (; i + 4 <= m.n; i += 4) exchange_columns<4>(m, exchanges, i);                                                 \
    for (; i < m.n; ++i) exchange_columns<1>(m, exchanges, i);                                                         \
  }
LED_KERNELS(WideFloat, LED_WIDE)
LED_KERNELS(WideDouble, LED_WIDE)
LED_KERNELS(NarrowFloat, LED_NARROW)
LED_KERNELS(NarrowDouble, LED_NARROW)
#undef LED_KERNELS

}  // namespace

template <class S> void eliminate(const LaneMatrix<S>& m, Goal goal, std::vector<Exchange<S>>& exchanges) {
  const int n = m.n, block = n >= kBlockFrom ? kBlock : kPanel;
  const bool inverse = goal != Goal::determinant;
  exchanges.clear();
  for (int begin = 0; begin < n; begin += block) {
    const int end = std::min(begin + block, n);
    const size_t first = exchanges.size();
    const auto update = [&](int p, int q, size_t first_exchange, int from, int to) {
      if (from < to)
        apply(m, goal, p, q, exchanges.data() + first_exchange, exchanges.data() + exchanges.size(), from, to);
    };
    for (int p = begin, q; p < end; p = q) {
      q = p + kPanel <= end ? p + kPanel : p + 1;
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

template void eliminate(const LaneMatrix<WideFloat>&, Goal, std::vector<Exchange<WideFloat>>&);
template void eliminate(const LaneMatrix<WideDouble>&, Goal, std::vector<Exchange<WideDouble>>&);
template void eliminate(const LaneMatrix<NarrowFloat>&, Goal, std::vector<Exchange<NarrowFloat>>&);
template void eliminate(const LaneMatrix<NarrowDouble>&, Goal, std::vector<Exchange<NarrowDouble>>&);

}  // namespace led::circulant_logdet
