// Real Fourier transforms of images, a SIMD vector of samples at a time: each number is a vector, so that nothing is
// shuffled but where samples are read and written. Mixed radix, any size; a prime factor p costs p operations a number.
#pragma once
#include <vector>

#include "circulant_logdet/spectrum.h"

namespace led::circular_conv_inverse {

using namespace circulant_logdet;

template <class S> struct ComplexVector {
  Vec<S> re, im;
};
template <class S> constexpr int kComplex = 2 * S::lanes;  // Reals of a complex vector

template <class S> LED_INLINE ComplexVector<S> load_complex(const Real<S>* p) {
  return {load<S>(p), load<S>(p + S::lanes)};
}
template <class S> LED_INLINE void store_complex(Real<S>* p, ComplexVector<S> z) {
  store<S>(p, z.re);
  store<S>(p + S::lanes, z.im);
}
template <class S> LED_INLINE ComplexVector<S> add(ComplexVector<S> a, ComplexVector<S> b) {
  return {a.re + b.re, a.im + b.im};
}
template <class S> LED_INLINE ComplexVector<S> subtract(ComplexVector<S> a, ComplexVector<S> b) {
  return {a.re - b.re, a.im - b.im};
}
template <class S> LED_INLINE ComplexVector<S> turn(ComplexVector<S> z, const Real<S>* phase) {
  return {z.re * phase[0] - z.im * phase[1], z.re * phase[1] + z.im * phase[0]};
}

// One step of Stockham's algorithm: `radix` parts of `length` numbers, of which `parts` of `rest` numbers are left.
struct Stage {
  int64_t radix, rest;
  size_t twiddles, roots;  // where e^{-2πi q t / length} [q < rest][t < radix] and e^{-2πi t / radix} lie
};

// The plan of complex transforms of one length, e^{-2πi j k / length}.
template <class R> struct Plan {
  int64_t length;
  std::vector<Stage> stages;
  std::vector<R> phases;

  explicit Plan(int64_t size) : length(size) {
    for (int64_t left = size; left > 1;) {
      int64_t radix = left % 4 == 0 ? 4 : 2;
      while (left % radix != 0) radix = radix * radix > left ? left : radix + 1;
      Stage stage{radix, left / radix, phases.size(), 0};
      for (int64_t q = 0; q < stage.rest; ++q)
        for (int64_t t = 0; t < radix; ++t) add(q * t, left);
      stage.roots = phases.size();
      for (int64_t t = 0; t < radix; ++t) add(t, radix);
      stages.push_back(stage);
      left = stage.rest;
    }
  }

 private:
  void add(int64_t turns, int64_t size) {  // e^{-2πi turns / size}
    const std::vector<double>& roots = roots_of(size);
    const double* root = &roots[2 * (2 * turns % (2 * size))];
    phases.insert(phases.end(), {R(root[0]), R(-root[1])});
  }
  const std::vector<double>& roots_of(int64_t size) {
    if (int64_t(roots_.size()) != 4 * size) roots_ = roots_of_unity(size);
    return roots_;
  }
  std::vector<double> roots_;
};

// Both: in[(q + rest * j), k] for j < radix, to out[(radix * q + t), k], k < step.
template <class S>
LED_INLINE void transform_by_4(const Plan<Real<S>>& plan, const Stage& stage, const Real<S>* in, Real<S>* out,
                               int64_t step) {
  const Real<S>* twiddle = &plan.phases[stage.twiddles];
  const int64_t apart = stage.rest * step;
  for (int64_t q = 0; q < stage.rest; ++q, twiddle += 8, in += step, out += 4 * step) {
    for (int64_t k = 0; k < step; k += kComplex<S>) {
      const auto a = load_complex<S>(in + k), b = load_complex<S>(in + apart + k);
      const auto c = load_complex<S>(in + 2 * apart + k), d = load_complex<S>(in + 3 * apart + k);
      const auto sum = add<S>(a, c), difference = subtract<S>(a, c), other = add<S>(b, d), across = subtract<S>(b, d);
      const ComplexVector<S> quarter = {across.im, -across.re};  // -i across
      store_complex<S>(out + k, add<S>(sum, other));
      store_complex<S>(out + step + k, turn<S>(add<S>(difference, quarter), twiddle + 2));
      store_complex<S>(out + 2 * step + k, turn<S>(subtract<S>(sum, other), twiddle + 4));
      store_complex<S>(out + 3 * step + k, turn<S>(subtract<S>(difference, quarter), twiddle + 6));
    }
  }
}
template <class S>
LED_INLINE void transform_by_any(const Plan<Real<S>>& plan, const Stage& stage, const Real<S>* in, Real<S>* out,
                                 int64_t step) {
  const int64_t radix = stage.radix, apart = stage.rest * step;
  const Real<S>*twiddle = &plan.phases[stage.twiddles], *roots = &plan.phases[stage.roots];
  for (int64_t q = 0; q < stage.rest; ++q, twiddle += 2 * radix, in += step, out += radix * step) {
    for (int64_t k = 0; k < step; k += kComplex<S>) {
      for (int64_t t = 0; t < radix; ++t) {
        ComplexVector<S> sum = load_complex<S>(in + k);
        for (int64_t j = 1; j < radix; ++j)
          sum = add<S>(sum, turn<S>(load_complex<S>(in + j * apart + k), roots + 2 * (j * t % radix)));
        store_complex<S>(out + t * step + k, turn<S>(sum, twiddle + 2 * t));
      }
    }
  }
}

// Transforms `data` along the first of its dimensions [length, inner]. Spoils both; returns the one with the result.
template <class S>
LED_INLINE Real<S>* transform(const Plan<Real<S>>& plan, Real<S>* data, Real<S>* spare, int64_t inner) {
  for (const Stage& stage : plan.stages) {
    const int64_t step = inner * kComplex<S>;
    if (stage.radix == 4) transform_by_4<S>(plan, stage, data, spare, step);
    else transform_by_any<S>(plan, stage, data, spare, step);
    inner *= stage.radix;
    Real<S>* const written = spare;
    spare = data;
    data = written;
  }
  return data;
}

// Transforms of images on one grid, and where the numbers of the half spectrum stand in [H, W / 2 + 1].
template <class R> struct Fourier {
  Grid grid;
  int64_t half_columns;
  Plan<R> rows, columns;         // along columns and along rows: of lengths H and W
  std::vector<int64_t> places;   // of each frequency
  std::vector<int64_t> mirrors;  // of its conjugate, or -1 where that is not in the half spectrum, or the same

  explicit Fourier(Grid g) : grid(g), half_columns(g.columns / 2 + 1), rows(g.rows), columns(g.columns) {
    for (int64_t i = 0; i < g.frequencies(); ++i) {
      const Frequency f = g.frequency(i);
      const bool mirrored = f.weight == 2 && 2 * f.column % g.columns == 0;
      places.push_back(f.row * half_columns + f.column);
      mirrors.push_back(mirrored ? (g.rows - f.row) * half_columns + f.column : -1);
    }
  }

  // In complex vectors: a buffer that holds an image, a half spectrum, or a pair of rows and its transform.
  int64_t buffer() const {
    return std::max(grid.rows * half_columns, std::max(2 * grid.columns, (grid.rows * grid.columns + 32) / 2));
  }
  int64_t workspace() const { return 3 * buffer(); }
};

// Samples to SIMD lanes: numbers `from` to `from + lanes` of each image, images `stride` apart; 0 for lanes without
// one.
template <class S>
LED_INLINE void read_samples(const Real<S>* images, int64_t stride, int64_t count, int64_t size, Real<S>* out) {
  constexpr int lanes = S::lanes;
  for (int64_t from = 0; from < size; from += lanes) {
    Vec<S> v[lanes];
    for (int l = 0; l < lanes; ++l) {
      if (l >= count) v[l] = Vec<S>{};
      else if (from + lanes <= size) v[l] = load<S>(images + l * stride + from);
      else {
        alignas(64) Real<S> part[lanes] = {};
        for (int64_t i = from; i < size; ++i) part[i - from] = images[l * stride + i];
        v[l] = load<S>(part);
      }
    }
    transpose<S>(v);
    for (int l = 0; l < lanes; ++l) store<S>(out + (from + l) * lanes, v[l]);
  }
}
template <class S>
LED_INLINE void write_samples(const Real<S>* in, int64_t stride, int64_t count, int64_t size, Real<S>* images) {
  constexpr int lanes = S::lanes;
  for (int64_t from = 0; from < size; from += lanes) {
    Vec<S> v[lanes];
    for (int l = 0; l < lanes; ++l) v[l] = load<S>(in + (from + l) * lanes);
    transpose<S>(v);
    for (int l = 0; l < count; ++l) {
      if (from + lanes <= size) store<S>(images + l * stride + from, v[l]);
      else
        for (int64_t i = from; i < size; ++i) images[l * stride + i] = v[l][i - from];
    }
  }
}

// The spectrum of so many images (at most a vector), `stride` apart. Real and imaginary parts of frequency f go to
// spectrum + f * frequency_stride and `imaginary` after it.
template <class S>
LED_INLINE void to_spectrum(const Fourier<Real<S>>& f, const Real<S>* images, int64_t stride, int64_t count,
                            Real<S>* spectrum, int64_t frequency_stride, int64_t imaginary, Real<S>* workspace) {
  constexpr int lanes = S::lanes;
  const int64_t rows = f.grid.rows, columns = f.grid.columns, half = f.half_columns;
  Real<S>*image = workspace, *spare = workspace + f.buffer() * kComplex<S>, *plane = spare + f.buffer() * kComplex<S>;
  read_samples<S>(images, stride, count, rows * columns, image);
  for (int64_t r = 0; r < rows; r += 2) {
    // Two real rows are one complex row.
    Real<S>* pair = spare;
    Real<S>* scratch = spare + columns * kComplex<S>;
    for (int64_t c = 0; c < columns; ++c) {
      store<S>(pair + c * kComplex<S>, load<S>(image + (r * columns + c) * lanes));
      store<S>(pair + c * kComplex<S> + lanes,
               r + 1 < rows ? load<S>(image + ((r + 1) * columns + c) * lanes) : Vec<S>{});
    }
    const Real<S>* z = transform<S>(f.columns, pair, scratch, 1);
    for (int64_t c = 0; c < half; ++c) {
      const auto a = load_complex<S>(z + c * kComplex<S>),
                 b = load_complex<S>(z + (columns - c) % columns * kComplex<S>);
      const Real<S> h = Real<S>(0.5);
      store_complex<S>(plane + (r * half + c) * kComplex<S>, ComplexVector<S>{(a.re + b.re) * h, (a.im - b.im) * h});
      if (r + 1 < rows)
        store_complex<S>(plane + ((r + 1) * half + c) * kComplex<S>,
                         ComplexVector<S>{(a.im + b.im) * h, (b.re - a.re) * h});
    }
  }
  const Real<S>* result = transform<S>(f.rows, plane, image, half);
  for (size_t i = 0; i < f.places.size(); ++i, spectrum += frequency_stride) {
    const auto z = load_complex<S>(result + f.places[i] * kComplex<S>);
    store<S>(spectrum, z.re);
    store<S>(spectrum + imaginary, z.im);
  }
}

// Back again. An inverse transform is a transform of numbers whose real and imaginary parts are exchanged.
template <class S>
LED_INLINE void to_images(const Fourier<Real<S>>& f, const Real<S>* spectrum, int64_t frequency_stride,
                          int64_t imaginary, int64_t stride, int64_t count, Real<S>* images, Real<S>* workspace) {
  constexpr int lanes = S::lanes;
  const int64_t rows = f.grid.rows, columns = f.grid.columns, half = f.half_columns;
  Real<S>*image = workspace, *spare = workspace + f.buffer() * kComplex<S>, *plane = spare + f.buffer() * kComplex<S>;
  const Real<S> scale = Real<S>(1.0 / (double(rows) * double(columns)));
  for (size_t i = 0; i < f.places.size(); ++i, spectrum += frequency_stride) {
    const Vec<S> re = load<S>(spectrum) * scale, im = load<S>(spectrum + imaginary) * scale;
    store_complex<S>(plane + f.places[i] * kComplex<S>, ComplexVector<S>{im, re});
    if (f.mirrors[i] >= 0) store_complex<S>(plane + f.mirrors[i] * kComplex<S>, ComplexVector<S>{-im, re});
  }
  const Real<S>* result = transform<S>(f.rows, plane, image, half);  // which may be `image`: a row's end is read first
  for (int64_t r = 0; r < rows; r += 2) {
    Real<S>* pair = spare;
    Real<S>* scratch = spare + columns * kComplex<S>;
    for (int64_t c = 0; c < half; ++c) {
      const auto a = load_complex<S>(result + (r * half + c) * kComplex<S>);
      const auto b = r + 1 < rows ? load_complex<S>(result + ((r + 1) * half + c) * kComplex<S>) : ComplexVector<S>{};
      // The row is a + i b, and at the mirrored column conj(a) + i conj(b).
      store_complex<S>(pair + c * kComplex<S>, ComplexVector<S>{a.re + b.im, a.im - b.re});
      if (c > 0 && 2 * c < columns)
        store_complex<S>(pair + (columns - c) * kComplex<S>, ComplexVector<S>{b.im - a.re, a.im + b.re});
    }
    const Real<S>* z = transform<S>(f.columns, pair, scratch, 1);
    for (int64_t c = 0; c < columns; ++c) {
      store<S>(image + (r * columns + c) * lanes, load<S>(z + c * kComplex<S> + lanes));
      if (r + 1 < rows) store<S>(image + ((r + 1) * columns + c) * lanes, load<S>(z + c * kComplex<S>));
    }
  }
  write_samples<S>(image, stride, count, rows * columns, images);
}

}  // namespace led::circular_conv_inverse
