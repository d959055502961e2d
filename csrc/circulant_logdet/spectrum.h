// Symbols of a convolution kernel at a SIMD vector of frequencies, straight from its taps; log|det| of each from the
// pivots of its elimination; and the gradient's way back from inverse symbols to taps.
#pragma once
#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

#include "circulant_logdet/eliminate.h"
#include "circulant_logdet/math.h"
#include "common/elementary.h"

namespace led::circulant_logdet {

// e^{iπ m/size} for m in [0, 2 size), exact at multiples of a quarter turn.
inline std::vector<double> roots_of_unity(int64_t size) {
  std::vector<double> roots(4 * size);
  for (int64_t m = 0; m < 2 * size; ++m) {
    const int64_t quarter = (4 * m + size) / (2 * size);  // the nearest multiple of size / 2
    const double rest = 3.14159265358979323846 * double(2 * m - quarter * size) / double(2 * size);
    const double c = std::cos(rest), s = std::sin(rest);
    const double values[4][2] = {{c, s}, {-s, c}, {-c, -s}, {s, -c}};
    roots[2 * m] = values[quarter % 4][0];
    roots[2 * m + 1] = values[quarter % 4][1];
  }
  return roots;
}

struct Spectrum {
  Grid grid;
  Taps taps;
  std::vector<double> row_phases, column_phases;  // [frequency][tap][cos, sin] along each axis

  Spectrum(Grid grid, Taps taps)
      : grid(grid),
        taps(taps),
        row_phases(phases(grid.rows, taps.rows)),
        column_phases(phases(grid.columns, taps.columns)) {}

  static std::vector<double> phases(int64_t size, int64_t taps) {
    const std::vector<double> roots = roots_of_unity(size);
    std::vector<double> result;
    result.reserve(2 * size * taps);
    for (int64_t f = 0; f < size; ++f)
      for (int64_t t = 0; t < taps; ++t) {
        const double* root = &roots[2 * half_turns(f, t, taps, size)];
        result.insert(result.end(), {root[0], root[1]});
      }
    return result;
  }
};

// cos ψ_t (t <= N/2) and then sin ψ_t (t < N/2) at the SIMD vector of frequencies from `first` on, [t][lane], and the
// frequencies' weights. The last vector is filled up with copies of frequency 0 of weight 0.
template <class S> LED_INLINE void evaluate_basis(const Spectrum& s, int64_t first, Real<S>* basis, Real<S>* weights) {
  constexpr int lanes = S::lanes;
  const int64_t count = s.grid.frequencies(), cosines = s.taps.cosines();
  for (int l = 0; l < lanes; ++l) {
    const bool listed = first + l < count;
    const Frequency f = s.grid.frequency(listed ? first + l : 0);
    weights[l] = Real<S>(listed ? f.weight : 0);
    const double* row = &s.row_phases[2 * s.taps.rows * f.row];
    const double* columns = &s.column_phases[2 * s.taps.columns * f.column];
    for (int64_t t = 0, a = 0; t < cosines; ++a)
      for (int64_t b = 0; b < s.taps.columns && t < cosines; ++b, ++t) {
        const double re = row[2 * a] * columns[2 * b] - row[2 * a + 1] * columns[2 * b + 1];
        const double im = row[2 * a] * columns[2 * b + 1] + row[2 * a + 1] * columns[2 * b];
        basis[t * lanes + l] = Real<S>(re);
        if (t < s.taps.sines()) basis[(cosines + t) * lanes + l] = Real<S>(im);
      }
  }
}

// Sums, then differences, of mirrored taps: the coefficients of the basis.
template <class S> LED_INLINE void fold_taps(const Real<S>* weight, int64_t entries, Taps taps, Real<S>* folded) {
  const int64_t count = taps.count(), sines = taps.sines(), cosines = taps.cosines();
  for (int64_t e = 0; e < entries; ++e, weight += count, folded += count) {
    for (int64_t t = 0; t < sines; ++t) {
      folded[t] = weight[t] + weight[count - 1 - t];
      folded[cosines + t] = weight[t] - weight[count - 1 - t];
    }
    if (cosines > sines) folded[sines] = weight[sines];
  }
}

// kWidth neighbouring entries of one part (real or imaginary) of the symbols.
template <int kWidth, class S>
LED_INLINE void combine(const Real<S>* coefficients, int64_t stride, const Real<S>* basis, int64_t count,
                        Real<S>* out) {
  constexpr int lanes = S::lanes;
  Vec<S> sum[kWidth] = {};
  for (int64_t t = 0; t < count; ++t) {
    const Vec<S> wave = load<S>(basis + t * lanes);
#pragma GCC unroll 4
    for (int j = 0; j < kWidth; ++j) sum[j] += wave * coefficients[j * stride + t];
  }
#pragma GCC unroll 4
  for (int j = 0; j < kWidth; ++j) store<S>(out + j * 2 * lanes, sum[j]);
}

// Row i of the symbols.
template <class S>
LED_INLINE void evaluate_row(const Real<S>* folded, const Real<S>* basis, Taps taps, const LaneMatrix<S>& matrix,
                             int i) {
  constexpr int lanes = S::lanes;
  const int64_t count = taps.count(), cosines = taps.cosines(), sines = taps.sines();
  int j = 0;
  for (; j + 4 <= matrix.n; j += 4, folded += 4 * count) {
    combine<4, S>(folded, count, basis, cosines, matrix.entry(i, j));
    combine<4, S>(folded + cosines, count, basis + cosines * lanes, sines, matrix.entry(i, j) + lanes);
  }
  for (; j < matrix.n; ++j, folded += count) {
    combine<1, S>(folded, count, basis, cosines, matrix.entry(i, j));
    combine<1, S>(folded + cosines, count, basis + cosines * lanes, sines, matrix.entry(i, j) + lanes);
  }
}

// Σ over the lanes of weight * log|det|, of which the pivots are the factors; -inf where one is zero. A lane with a
// zero pivot loses its weight, so that it adds nothing to the gradient.
template <class S> LED_INLINE double sum_log_abs_det(const LaneMatrix<S>& matrix, Real<S>* weights) {
  constexpr int lanes = S::lanes;
  constexpr int safe_factors = std::is_same_v<Real<S>, float> ? 3 : 1;  // so many squares multiply to a normal double
  double square[lanes], scale[lanes], singular[lanes] = {}, invalid[lanes] = {};  // products of |pivot|^2 and scales
  int64_t square_exponent[lanes] = {}, scale_exponent[lanes] = {};
  for (int l = 0; l < lanes; ++l) square[l] = scale[l] = 1;
  for (int k = 0; k < matrix.n; ++k) {
    const Real<S>* pivot = matrix.pivot(k);
    LED_SIMD
    for (int l = 0; l < lanes; ++l) {
      double x = pivot[l], y = pivot[lanes + l];
      if constexpr (std::is_same_v<Real<S>, double>) {  // whose square may over- or underflow
        int64_t exponent;
        const double size = std::fabs(x) + std::fabs(y), safe = size == 0 ? 1 : size;
        x /= safe;
        y /= safe;
        scale[l] = split_exponent(scale[l] * safe, &exponent);
        scale_exponent[l] += exponent;
      }
      const double q = x * x + y * y;
      singular[l] = q == 0 ? 1 : singular[l];
      invalid[l] += q * 0;  // splitting loses NaN and infinity
      square[l] *= q == 0 ? 1 : q;
    }
    if (k % safe_factors != 0 && k + 1 < matrix.n) continue;
    LED_SIMD
    for (int l = 0; l < lanes; ++l) {
      int64_t exponent;
      square[l] = split_exponent(square[l], &exponent);
      square_exponent[l] += exponent;
    }
  }
  double sum = 0;
  LED_SIMD
  for (int l = 0; l < lanes; ++l)
    square[l] = 0.5 * log_normal(square[l]) + log_normal(scale[l]) + invalid[l] +
                (0.5 * double(square_exponent[l]) + double(scale_exponent[l])) * 0.69314718055994530942;
  for (int l = 0; l < lanes; ++l) {
    if (weights[l] == 0) continue;
    sum += singular[l] ? -std::numeric_limits<double>::infinity() : weights[l] * square[l];
    if (singular[l]) weights[l] = 0;
  }
  return sum;
}

// Lane l of vector i becomes lane i of vector l.
template <class S> LED_INLINE void transpose(Vec<S> (&v)[S::lanes]) {
  constexpr int lanes = S::lanes;
#pragma GCC unroll 4
  for (int d = lanes / 2; d > 0; d /= 2) {
    Mask<S> low = {}, high = {};
#pragma GCC unroll 16
    for (int l = 0; l < lanes; ++l) {
      low[l] = l & d ? lanes + l - d : l;
      high[l] = l & d ? lanes + l : l + d;
    }
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) {
      if (i & d) continue;
      const Vec<S> a = v[i], b = v[i + d];
      v[i] = __builtin_shuffle(a, b, low);
      v[i + d] = __builtin_shuffle(a, b, high);
    }
  }
}

// sums[t, :] += Σ_lanes waves[t, lane] * part[:, lane] for one part (real or imaginary) of so many entries.
template <class S>
LED_INLINE void correlate(Vec<S> (&part)[S::lanes], const Real<S>* waves, int64_t count, int64_t stride,
                          Real<S>* sums) {
  constexpr int lanes = S::lanes;
  transpose<S>(part);
  for (int64_t t = 0; t < count; ++t, sums += stride, waves += lanes) {
    Vec<S> sum[2] = {load<S>(sums), Vec<S>{}};
#pragma GCC unroll 16
    for (int l = 0; l < lanes; ++l) sum[l % 2] += part[l] * waves[l];
    store<S>(sums, sum[0] + sum[1]);
  }
}

template <class S> LED_INLINE int64_t whole_vectors(int64_t size) {
  return (size + S::lanes - 1) / S::lanes * S::lanes;
}

// The gradient with respect to folded taps, transposed, [tap][entry of the inverse], taps `stride` apart, entries
// filled up to whole vectors: gradient[t, (r, c)] += Re Σ_lanes weight inverse[r, c] (cos ψ_t + i sin ψ_t). Spoils the
// basis.
template <class S>
LED_INLINE void accumulate_gradient(const LaneMatrix<S>& inverse, Real<S>* basis, const Real<S>* weights, Taps taps,
                                    int64_t stride, Real<S>* gradient) {
  constexpr int lanes = S::lanes;
  const int64_t cosines = taps.cosines(), sines = taps.sines(), entries = int64_t(inverse.n) * inverse.n;
  const Vec<S> weight = load<S>(weights);
  for (int64_t t = 0; t < cosines + sines; ++t)
    store<S>(basis + t * lanes, load<S>(basis + t * lanes) * (t < cosines ? weight : -weight));
  int r = 0, c = 0;
  for (int64_t e = 0; e < entries; e += lanes) {
    Vec<S> re[lanes], im[lanes];
    for (int i = 0; i < lanes; ++i) {
      const Real<S>* z = inverse.entry(r, c);  // the last one again where there are no more
      re[i] = load<S>(z);
      im[i] = load<S>(z + lanes);
      if (c + 1 < inverse.n) ++c;
      else if (r + 1 < inverse.n) ++r, c = 0;
    }
    correlate<S>(re, basis, cosines, stride, gradient + e);
    correlate<S>(im, basis + cosines * lanes, sines, stride, gradient + cosines * stride + e);
  }
}

}  // namespace led::circulant_logdet
