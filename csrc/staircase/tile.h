// Tiles: a feature's elements, brought side by side in the type they are computed in, whatever their layout.
#pragma once
#include <numeric>

#include "common/elementary.h"
#include "staircase/layout.h"

namespace led::staircase {

constexpr int kTile = 256;     // elements
constexpr int kRegister = 16;  // loops run over multiples of it, so that no scalar remainder is left

// `runs` runs of `length` elements each: those of one sample. At most kTile in all.
struct Tile {
  int64_t offset, run_stride, stride, sample;
  int runs, length;

  LED_INLINE int count() const { return runs * length; }
  LED_INLINE int padded() const { return (count() + kRegister - 1) / kRegister * kRegister; }
};

// Calls f(tile) for tiles that cover a feature's elements in a chunk.
template <class F> LED_INLINE void for_each_tile(const Layout& l, const Chunk& c, int64_t feature, F f) {
  const int64_t start = c.sample * l.sample_stride() + feature * l.feature_stride() + c.begin * l.inner_stride();
  const int runs = int(std::min(c.samples, std::max<int64_t>(1, kTile / c.length)));
  const int length = int(std::min<int64_t>(c.length, kTile));
  for (int64_t s = 0; s < c.samples; s += runs) {
    for (int64_t i = 0; i < c.length; i += length) {
      f(Tile{start + s * l.sample_stride() + i * l.inner_stride(), l.sample_stride(), l.inner_stride(), c.sample + s,
             int(std::min<int64_t>(runs, c.samples - s)), int(std::min<int64_t>(length, c.length - i))});
    }
  }
}

// Calls f(position in the tile, offset in memory of its first element, elements, their stride) for every stretch of
// elements at one stride. Samples of one element make one stretch.
template <class F> LED_INLINE void for_each_stretch(const Tile& t, F f) {
  if (t.length == 1) return f(0, t.offset, t.runs, t.run_stride);
  for (int r = 0; r < t.runs; ++r) f(r * t.length, t.offset + r * t.run_stride, t.length, t.stride);
}

// A tile of memory, padded by zeros to whole registers.
template <class T> LED_INLINE void read(const T* from, const Tile& t, RealOf<T>* to) {
  for_each_stretch(t, [&](int at, int64_t offset, int n, int64_t stride) __attribute__((always_inline)) {
    const T* source = from + offset;
    if (stride == 1) {
      LED_SIMD
      for (int i = 0; i < n; ++i) to[at + i] = load(source[i]);
    } else {
      for (int i = 0; i < n; ++i) to[at + i] = load(source[i * stride]);
    }
  });
  for (int i = t.count(); i < t.padded(); ++i) to[i] = 0;
}

template <class T> LED_INLINE void write(const RealOf<T>* from, const Tile& t, T* to) {
  for_each_stretch(t, [&](int at, int64_t offset, int n, int64_t stride) __attribute__((always_inline)) {
    T* target = to + offset;
    if (stride == 1) {
      LED_SIMD
      for (int i = 0; i < n; ++i) store(target + i, from[at + i]);
    } else {
      for (int i = 0; i < n; ++i) store(target + i * stride, from[at + i]);
    }
  });
}

// One value a sample, repeated for its elements and padded by zeros. A null pointer stands for zeros.
template <class Real> LED_INLINE void spread(const Real* per_sample, const Tile& t, Real* to) {
  for (int r = 0, i = 0; r < t.runs; ++r)
    for (const int stop = i + t.length; i < stop; ++i) to[i] = per_sample ? per_sample[t.sample + r] : 0;
  for (int i = t.count(); i < t.padded(); ++i) to[i] = 0;
}

// Adds each run's sum to its sample's.
template <class Real> LED_INLINE void add_runs(const Real* values, const Tile& t, double* sums, int64_t stride) {
  if (t.length == 1) {
    for (int r = 0; r < t.runs; ++r) sums[(t.sample + r) * stride] += values[r];
    return;
  }
  for (int r = 0; r < t.runs; ++r) {
    double sum = 0;
    const Real* run = values + r * t.length;
    _Pragma("omp simd reduction(+:sum)") for (int i = 0; i < t.length; ++i) sum += run[i];
    sums[(t.sample + r) * stride] += sum;
  }
}

}  // namespace led::staircase
