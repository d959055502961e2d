// The gradients of the perpendicular norm through u = conv_transpose(t, weight), for the same kernels and with the same
// saving as karatsuba.h. With v the gradient wrt u:
//   grad_t = conv(v, weight),   grad_weight[o, c, tap] = Σ_cells t[o, cell] v[c, 2 cell + tap - padding]
// In each phase both are correlations of 2 taps (or 2 cells) with 3 neighbours x0, x1, x2 of v:
//   f0 x0 + f1 x1 = p0 + p1,  f0 x1 + f1 x2 = p1 + p2,   p0 = f0 (x0 - x1),  p1 = (f0 + f1) x1,  p2 = f1 (x2 - x1)
#pragma once
#include "perpendicular/karatsuba.h"

namespace led::perpendicular::karatsuba {

// What the three products of three neighbours need.
template <class V> struct Differences {
  V of[3];
  LED_INLINE Differences(const V& x0, const V& x1, const V& x2) : of{x0 - x1, x1, x2 - x1} {}
};

// The two sums from the three products along one axis.
template <class V> struct Sums {
  V of[2];
  LED_INLINE Sums(const V& p0, const V& p1, const V& p2) : of{p0 + p1, p1 + p2} {}
};

// m[3 y + x] -> the sums [2 y + x] of both axes.
template <class V> LED_INLINE void sums_of(const V (&m)[kProducts], V (&sums)[4]) {
  for (int x = 0; x < 2; ++x) {
    V along_x[3];
    for (int y = 0; y < 3; ++y) along_x[y] = Sums<V>(m[3 * y], m[3 * y + 1], m[3 * y + 2]).of[x];
    const Sums<V> both(along_x[0], along_x[1], along_x[2]);
    for (int y = 0; y < 2; ++y) sums[2 * y + x] = both.of[y];
  }
}

// One channel of grad_x = scale (x - a u), which is written, and of v = -a grad_x: to plane [cell][kColumns].
template <class T>
LED_INLINE void scatter_gradient(const T* x, const T* u, T a, T scale, const Geometry& g, const Grid& grid, int64_t c,
                                 T* grad_x, T* plane) {
  for (int64_t i = 0; i < g.pixels(); ++i) grad_x[i] = scale * (x[i] - a * u[i]);
  for (int64_t y = 0; y < g.height; ++y, grad_x += g.width) {
    const int64_t Y = y + g.padding_h;
    T* row = plane + Y / 2 * grid.width * kColumns<T> + c * kPhases + Y % 2 * 2;
    int64_t i = 0, X = g.padding_w;
    if (X % 2) row[X++ / 2 * kColumns<T> + 1] = -a * grad_x[i++];
    for (T* to = row + X / 2 * kColumns<T>; i + 1 < g.width; i += 2, X += 2, to += kColumns<T>)
      to[0] = -a * grad_x[i], to[1] = -a * grad_x[i + 1];
    if (i < g.width) row[X / 2 * kColumns<T>] = -a * grad_x[i];
  }
}

// The plane of one sample -> its tiles' differences, [product][tile][kColumns] with `product` elements a product.
template <class T>
LED_INLINE void pack_differences(const T* plane, const Grid& grid, int64_t columns, int64_t product, T* packed) {
  for (int64_t i = 0; i < grid.rows; ++i)
    for (int64_t j = 0; j < grid.columns; ++j, packed += kColumns<T>)
      for (int64_t l = 0; l < columns; l += kLanes<T>) {
        const T* corner = plane + (2 * i * grid.width + 2 * j) * kColumns<T> + l;
        Vector<T> along_x[3][3];
        for (int y = 0; y < 3; ++y) {
          const T* cell = corner + y * grid.width * kColumns<T>;
          const Vector<T> x0 = at(cell), x1 = at(cell + kColumns<T>), x2 = at(cell + 2 * kColumns<T>);
          const Differences<Vector<T>> d(x0, x1, x2);
          for (int x = 0; x < 3; ++x) along_x[y][x] = d.of[x];
        }
        for (int x = 0; x < 3; ++x) {
          const Differences<Vector<T>> d(along_x[0][x], along_x[1][x], along_x[2][x]);
          for (int y = 0; y < 3; ++y) at(packed + (3 * y + x) * product + l) = d.of[y];
        }
      }
}

// t (samples, out, ...) -> [product][out][stretch], from tile `first` of the stretch on.
template <class T>
LED_INLINE void pack_rows(const T* t, const Geometry& g, const Grid& grid, int64_t samples, int64_t first,
                          int64_t stretch, Lines<T>& lines, T* packed) {
  for (int64_t o = 0; o < g.out_channels; ++o) {
    factors_of_channel(t, g, grid, samples, o, lines);
    for (int64_t q = 0; q < kProducts; ++q)
      std::memcpy(packed + (q * g.out_channels + o) * stretch + first, lines.product(q),
                  samples * grid.tiles() * sizeof(T));
  }
}

// Adds the products of one stretch to (or, of the first one, writes them to) sums [product][out, rounded up to
// kRows][kColumns] for one block of channels.
template <class T>
LED_INLINE void add_weight_products(const T* rows, const T* differences, int64_t outs, int64_t tiles, int64_t stretch,
                                    int64_t columns, bool first, T* sums) {
  const int64_t rounded = divide_up(outs, kRows) * kRows;
  for (int64_t q = 0; q < kProducts; ++q)
    for (int64_t o = 0; o < outs; o += kRows) {
      const T *a = rows + (q * outs + o) * stretch, *b = differences + q * stretch * kColumns<T>;
      T* out = sums + (q * rounded + o) * kColumns<T>;
      if (first) panel_product<T, Rows::kApart>(tiles, a, stretch, b, columns, out);
      else panel_product<T, Rows::kApart, true>(tiles, a, stretch, b, columns, out);
    }
}

// grad_weight (out, in, 4, 4) of one block of channels from its products.
template <class T>
LED_INLINE void write_weight_gradient(const T* sums, const Geometry& g, int64_t channel, int64_t channels,
                                      T* grad_weight) {
  const int64_t rounded = divide_up(g.out_channels, kRows) * kRows;
  for (int64_t o = 0; o < g.out_channels; ++o)
    for (int64_t l = 0; l < channels * kPhases; l += kLanes<T>) {
      Vector<T> m[kProducts], of_tap[4];
      for (int q = 0; q < kProducts; ++q) m[q] = at(sums + (q * rounded + o) * kColumns<T> + l);
      sums_of(m, of_tap);
      T lanes[4][kLanes<T>];
      for (int a = 0; a < 4; ++a) at(lanes[a]) = of_tap[a];
      T* to = grad_weight + (o * g.in_channels + channel + l / kPhases) * kTaps;
      const int64_t present = std::min<int64_t>(kLanes<T> / kPhases, channels - l / kPhases);
      for (int64_t c = 0; c < present; ++c)
        for (int64_t y = 0; y < 4; ++y)
          for (int64_t x = 0; x < 4; x += 2)
            std::memcpy(to + c * kTaps + y * 4 + x, lanes[y / 2 * 2 + x / 2] + c * kPhases + y % 2 * 2, 2 * sizeof(T));
    }
}

// weight (out, in, 4, 4) -> [product][channel, phase][kColumns outputs] for `outs` outputs from `first` on.
template <class T>
LED_INLINE void pack_weight_outputs(const T* weight, const Geometry& g, int64_t first, int64_t outs, T* packed) {
  const int64_t product = g.in_channels * kPhases * kColumns<T>;
  for (int64_t c = 0; c < g.in_channels; ++c) {
    alignas(64) T tap[kTaps][kColumns<T>] = {};
    for (int64_t o = 0; o < outs; ++o) {
      const T* w = weight + ((first + o) * g.in_channels + c) * kTaps;
      __builtin_prefetch(w + 4 * kTaps);  // rows lie too far apart for the hardware to see a pattern
      for (int64_t k = 0; k < kTaps; ++k) tap[k][o] = w[k];
    }
    for (int64_t phase = 0; phase < kPhases; ++phase, packed += kColumns<T>)
      for (int64_t l = 0; l < outs; l += kLanes<T>) {
        const int64_t corner = phase / 2 * 4 + phase % 2;
        const Vector<T> w00 = at(tap[corner] + l), w01 = at(tap[corner + 2] + l);
        const Vector<T> w10 = at(tap[corner + 8] + l), w11 = at(tap[corner + 10] + l);
        const Factors<Vector<T>> top(w00, w01), bottom(w10, w11);
        for (int x = 0; x < 3; ++x) {
          const Factors<Vector<T>> column(top.of[x], bottom.of[x]);
          for (int y = 0; y < 3; ++y) at(packed + (y * 3 + x) * product + l) = column.of[y];
        }
      }
  }
}

// grad_t of the samples of a stretch for one block of outputs. A block of channels goes through all tiles, so that its
// weights stay in the first-level cache; `products` has room for [product][stretch][kColumns].
template <class T>
LED_INLINE void convolve(const T* differences, const T* weight, const Geometry& g, const Grid& grid, int64_t samples,
                         int64_t stretch, int64_t first_out, int64_t outs, T* products, T* grad_t) {
  const int64_t tiles = samples * grid.tiles(), block = kProducts * stretch * kColumns<T>;
  for (int64_t q = 0; q < kProducts; ++q)
    for (int64_t c = 0; c < g.in_channels; c += kChannels<T>) {
      const T* a = differences + c / kChannels<T> * block + q * stretch * kColumns<T>;
      const T* b = weight + (q * g.in_channels + c) * kPhases * kColumns<T>;
      T* out = products + q * stretch * kColumns<T>;
      const int64_t depth = std::min(kChannels<T>, g.in_channels - c) * kPhases;
      for (int64_t first = 0; first < tiles; first += kRows, a += kRows * kColumns<T>, out += kRows * kColumns<T>) {
        if (c == 0) panel_product<T, Rows::kApart>(depth, a, kColumns<T>, b, outs, out);
        else panel_product<T, Rows::kApart, true>(depth, a, kColumns<T>, b, outs, out);
      }
    }
  for (int64_t s = 0; s < samples; ++s, grad_t += g.out_channels * g.cells())
    for (int64_t tile = 0; tile < grid.tiles(); ++tile, products += kColumns<T>) {
      const int64_t i = tile / grid.columns * 2, j = tile % grid.columns * 2;
      const bool right = j + 1 < g.out_width, below = i + 1 < g.out_height;
      T* to = grad_t + first_out * g.cells() + i * g.out_width + j;
      for (int64_t l = 0; l < outs; l += kLanes<T>) {
        Vector<T> m[kProducts], of_cell[4];
        for (int q = 0; q < kProducts; ++q) m[q] = at(products + q * stretch * kColumns<T> + l);
        sums_of(m, of_cell);
        T lanes[4][kLanes<T>];
        for (int cell = 0; cell < 4; ++cell) at(lanes[cell]) = of_cell[cell];
        for (int64_t o = 0; o < std::min<int64_t>(kLanes<T>, outs - l); ++o) {
          T* cell = to + (l + o) * g.cells();
          cell[0] = lanes[0][o];
          if (right) cell[1] = lanes[1][o];
          if (below) cell[g.out_width] = lanes[2][o];
          if (right && below) cell[g.out_width + 1] = lanes[3][o];
        }
      }
    }
}

}  // namespace led::perpendicular::karatsuba
