// Where spectra and inverse symbols lie between the steps on the CPU, and how they get from one order to another.
#pragma once
#include <algorithm>
#include <vector>

#include "circulant_logdet/spectrum.h"
#include "circular_conv_inverse/op.h"

namespace led::circular_conv_inverse {

using namespace circulant_logdet;

inline int64_t padded(int64_t size) { return (size + 15) / 16 * 16; }  // whole vectors of any width

// Spectra and inverse symbols, [frequency][channel][re, im][...]: one of each frequency, a cache line apart from the
// next, so that the frequencies of one channel fall on different cache sets.
struct Layout {
  int64_t frequencies, channels, width;  // width: samples, or channels, padded

  int64_t row() const { return 2 * width; }
  int64_t frequency() const { return channels * row() + 16; }
  int64_t size() const { return frequencies * frequency(); }
};
// Zeros where `used` of the width hold numbers, so that what an operator returns is the same every time.
template <class R> void clear_padding(const Layout& layout, int64_t used, R* data) {
  for (int64_t f = 0; f < layout.frequencies; ++f, data += layout.frequency()) {
    for (int64_t row = 0; row < 2 * layout.channels; ++row)
      std::fill(data + row * layout.width + used, data + (row + 1) * layout.width, R(0));
    std::fill(data + layout.channels * layout.row(), data + layout.frequency(), R(0));
  }
}
inline Layout spectrum_layout(const Problem& p) { return {p.grid.frequencies(), p.channels, padded(p.samples)}; }
inline Layout inverse_layout(const Problem& p) { return {p.grid.frequencies(), p.channels, padded(p.channels)}; }

// e^{iπ half_turns / size}, from the roots of unity of that size.
inline const double* root(const std::vector<double>& roots, int64_t half_turns) {
  const int64_t turn = int64_t(roots.size()) / 2, n = half_turns % turn;
  return &roots[2 * (n < 0 ? n + turn : n)];
}
template <class R> void append_product(std::vector<R>& out, const double* a, const double* b, double factor) {
  out.insert(out.end(), {R((a[0] * b[0] - a[1] * b[1]) * factor), R((a[0] * b[1] + a[1] * b[0]) * factor)});
}

// [frequency][cos, sin] of what turns the centred symbol of math.h to that of `padding="same"`, whose centre is tap
// (k - 1) / 2 rounded down.
template <class R> std::vector<R> centre_phases(const Problem& p) {
  const std::vector<double> rows = roots_of_unity(p.grid.rows), columns = roots_of_unity(p.grid.columns);
  std::vector<R> phases;
  for (int64_t i = 0; i < p.grid.frequencies(); ++i) {
    const Frequency f = p.grid.frequency(i);
    append_product(phases, root(rows, p.taps.rows % 2 == 0 ? f.row : 0),
                   root(columns, p.taps.columns % 2 == 0 ? f.column : 0), 1);
  }
  return phases;
}

// [frequency][tap][cos, sin] of each tap's place in the latter, times the frequency's weight.
template <class R> std::vector<R> tap_phases(const Problem& p) {
  const std::vector<double> rows = roots_of_unity(p.grid.rows), columns = roots_of_unity(p.grid.columns);
  std::vector<R> phases;
  phases.reserve(p.grid.frequencies() * p.taps.count() * 2);
  for (int64_t i = 0; i < p.grid.frequencies(); ++i) {
    const Frequency f = p.grid.frequency(i);
    for (int64_t a = 0; a < p.taps.rows; ++a)
      for (int64_t b = 0; b < p.taps.columns; ++b)
        append_product(phases, root(rows, 2 * f.row * (a - (p.taps.rows - 1) / 2)),
                       root(columns, 2 * f.column * (b - (p.taps.columns - 1) / 2)), f.weight);
  }
  return phases;
}

// The inverse symbols of a vector of frequencies from `first` on, transposed: `inverses` is that of the first one.
template <class S>
LED_INLINE void write_inverses(const LaneMatrix<S>& matrix, const Real<S>* turn_re, const Real<S>* turn_im,
                               int64_t count, const Layout& layout, Real<S>* inverses) {
  constexpr int lanes = S::lanes;
  const Vec<S> cosines = load<S>(turn_re), sines = load<S>(turn_im);
  for (int j = 0; j < matrix.n; ++j)
    for (int i = 0; i < matrix.n; i += lanes) {
      Vec<S> re[lanes], im[lanes];
      for (int l = 0; l < lanes; ++l) {
        const Real<S>* z = matrix.entry(std::min(i + l, matrix.n - 1), j);
        const Vec<S> x = load<S>(z), y = load<S>(z + lanes);
        re[l] = x * cosines + y * sines;
        im[l] = y * cosines - x * sines;
      }
      transpose<S>(re);
      transpose<S>(im);
      for (int l = 0; l < count; ++l) {
        Real<S>* out = inverses + l * layout.frequency() + j * layout.row() + i;
        store<S>(out, re[l]);
        store<S>(out + layout.width, im[l]);
      }
    }
}

// [channel][re, im][sample] to [sample][re, im][channel].
template <class S>
LED_INLINE void transpose_spectrum(const Real<S>* spectrum, const Layout& layout, int64_t samples, int64_t stride,
                                   Real<S>* out) {
  constexpr int lanes = S::lanes;
  for (int64_t c = 0; c < layout.channels; c += lanes)
    for (int64_t part = 0; part < 2; ++part)
      for (int64_t b = 0; b < samples; b += lanes) {
        Vec<S> v[lanes];
        for (int l = 0; l < lanes; ++l)
          v[l] = load<S>(spectrum + std::min(c + l, layout.channels - 1) * layout.row() + part * layout.width + b);
        transpose<S>(v);
        for (int l = 0; l < lanes && b + l < samples; ++l)
          store<S>(out + (b + l) * 2 * stride + part * stride + c, v[l]);
      }
}

// sums[t] += Re Σ_f products[f] phases[f, t] of a vector of entries and kTaps taps.
template <int kTaps, class S>
LED_INLINE void fold_entries(const Real<S>* products, int64_t apart, int64_t imaginary, const Real<S>* phases,
                             int64_t phases_apart, int64_t frequencies, Real<S>* sums, int64_t sums_apart) {
  Vec<S> sum[kTaps] = {};
  for (int64_t f = 0; f < frequencies; ++f, products += apart, phases += phases_apart) {
    const Vec<S> re = load<S>(products), im = load<S>(products + imaginary);
#pragma GCC unroll 9
    for (int t = 0; t < kTaps; ++t) {
      sum[t] += re * phases[2 * t];
      sum[t] -= im * phases[2 * t + 1];
    }
  }
#pragma GCC unroll 9
  for (int t = 0; t < kTaps; ++t) store<S>(sums + t * sums_apart, load<S>(sums + t * sums_apart) + sum[t]);
}

// products: [frequency][row][re, im][width]; sums: [tap][row][width].
template <class S>
LED_INLINE void fold_products(const Real<S>* products, const Layout& layout, const Real<S>* phases, int64_t taps,
                              int64_t frequencies, Real<S>* sums) {
  const int64_t apart = layout.channels * layout.row(), sums_apart = layout.channels * layout.width;
  for (int64_t row = 0; row < layout.channels; ++row)
    for (int64_t c = 0; c < layout.channels; c += S::lanes) {
      const Real<S>* from = products + row * layout.row() + c;
      Real<S>* to = sums + row * layout.width + c;
      int64_t t = 0;
      for (; t + 9 <= taps; t += 9)
        fold_entries<9, S>(from, apart, layout.width, phases + 2 * t, 2 * taps, frequencies, to + t * sums_apart,
                           sums_apart);
      for (; t < taps; ++t)
        fold_entries<1, S>(from, apart, layout.width, phases + 2 * t, 2 * taps, frequencies, to + t * sums_apart,
                           sums_apart);
    }
}

}  // namespace led::circular_conv_inverse
