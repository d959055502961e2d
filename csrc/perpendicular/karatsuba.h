// The transposed convolution u = conv_transpose(t, weight) for the 4x4 kernels of stride 2 of DCGANs, with 9/16 of
// the multiplications.
//
// Uncropped, the phase r of u is a product of polynomials: (t_0 + t_1 z + ...)(w_r + w_{r+2} z). Two cells of t at a
// time, Karatsuba's rule needs 3 multiplications instead of 4, and sums of two only (accurate in any precision):
//   (t0 + t1 z)(w0 + w1 z) = p0 + (p1 - p0 - p2) z + p2 z^2,   p0 = t0 w0,  p1 = (t0 + t1)(w0 + w1),  p2 = t1 w1
// In two dimensions 9 products replace 16. A tile of 2x2 cells thus adds to 3x3 cells of each of the 4 phases. The
// products are matrix products (tiles x out_channels) by (out_channels x [channel of x][phase]).
#pragma once
#include <cstring>
#include <vector>

#include "perpendicular/geometry.h"
#include "perpendicular/panel.h"

namespace led::perpendicular::karatsuba {

constexpr int64_t kProducts = 9, kPhases = 4, kTaps = 16;
template <class T> constexpr int64_t kChannels = kColumns<T> / kPhases;  // of x, in a block

inline bool applies(const Geometry& g) {
  return g.groups == 1 && g.kernel_h == 4 && g.kernel_w == 4 && g.stride_h == 2 && g.stride_w == 2 &&
         g.dilation_h == 1 && g.dilation_w == 1;
}

// Tiles of 2x2 cells of t, and the cells of u's phases that they reach.
struct Grid {
  int64_t rows, columns, height, width;

  explicit Grid(const Geometry& g)
      : rows(divide_up(g.out_height, 2)),
        columns(divide_up(g.out_width, 2)),
        height(std::max(2 * rows + 1, divide_up(g.height + g.padding_h, 2))),
        width(std::max(2 * columns + 1, divide_up(g.width + g.padding_w, 2))) {}
  int64_t tiles() const { return rows * columns; }
  int64_t cells() const { return height * width; }
};

// What the three products of two neighbours need of each side.
template <class V> struct Factors {
  V of[3];
  LED_INLINE Factors(const V& first, const V& second) : of{first, first + second, second} {}
};

// weight (out, in, 4, 4) -> [product][out][kColumns] for `channels` channels of x from `channel` on.
template <class T>
LED_INLINE void pack_weight(const T* weight, const Geometry& g, int64_t channel, int64_t channels, T* packed) {
  constexpr int64_t lanes = kLanes<T>, per_vector = lanes / kPhases;
  for (int64_t o = 0; o < g.out_channels; ++o, packed += kColumns<T>)
    for (int64_t c = 0; c < channels; c += per_vector) {
      const T* w = weight + (o * g.in_channels + channel + c) * kTaps;
      const int64_t present = std::min(per_vector, channels - c);
      alignas(64) T tap[4][lanes] = {};  // [ay][ax] of tap 2 a + phase; lanes are [channel][phase]
      for (int64_t i = 0; i < present; ++i)
        for (int64_t y = 0; y < 4; ++y)
          for (int64_t x = 0; x < 4; x += 2)
            std::memcpy(tap[y / 2 * 2 + x / 2] + i * kPhases + y % 2 * 2, w + i * kTaps + y * 4 + x, 2 * sizeof(T));
      const Vector<T> w00 = at(tap[0]), w01 = at(tap[1]), w10 = at(tap[2]), w11 = at(tap[3]);
      const Factors<Vector<T>> top(w00, w01), bottom(w10, w11);
      for (int x = 0; x < 3; ++x) {
        const Factors<Vector<T>> column(top.of[x], bottom.of[x]);
        for (int y = 0; y < 3; ++y)
          at(packed + (y * 3 + x) * g.out_channels * kColumns<T> + c * kPhases) = column.of[y];
      }
    }
}

// Scratch of pack_cells: the factors along y of the cells, and the products' factors of the tiles, of one channel.
template <class T> struct Lines {
  int64_t cells, tiles;
  std::vector<T> memory;

  Lines(const Grid& grid, int64_t samples)
      : cells(samples * grid.rows * 2 * grid.columns),
        tiles(divide_up(samples * grid.tiles(), kRows) * kRows),
        memory(3 * cells + kProducts * tiles) {}
  T* along_y(int64_t y) { return memory.data() + y * cells; }
  T* product(int64_t q) { return memory.data() + 3 * cells + q * tiles; }
};

template <class T>
LED_INLINE void factors_along_x(const T* __restrict cell, int64_t tiles, T* __restrict first, T* __restrict both,
                                T* __restrict second) {
  for (int64_t i = 0; i < tiles; ++i) {
    const Factors<T> f(cell[2 * i], cell[2 * i + 1]);
    first[i] = f.of[0], both[i] = f.of[1], second[i] = f.of[2];
  }
}

// The factors of every tile of one channel of t, in `lines`; zeros beyond the edges.
template <class T>
LED_INLINE void factors_of_channel(const T* t, const Geometry& g, const Grid& grid, int64_t samples, int64_t o,
                                   Lines<T>& lines) {
  const int64_t width = 2 * grid.columns;
  T *top = lines.along_y(0), *both = lines.along_y(1), *bottom = lines.along_y(2);
  for (int64_t s = 0; s < samples; ++s) {
    const T* row = t + (s * g.out_channels + o) * g.cells();
    for (int64_t i = 0; i < g.out_height; i += 2, row += 2 * g.out_width) {
      const bool below = i + 1 < g.out_height;
#pragma GCC ivdep
      for (int64_t j = 0; j < g.out_width; ++j) {
        const Factors<T> f(row[j], below ? row[g.out_width + j] : T(0));
        top[j] = f.of[0], both[j] = f.of[1], bottom[j] = f.of[2];
      }
      top += width, both += width, bottom += width;
    }
  }
  for (int y = 0; y < 3; ++y)
    factors_along_x(lines.along_y(y), samples * grid.tiles(), lines.product(3 * y), lines.product(3 * y + 1),
                    lines.product(3 * y + 2));
}

// t (samples, out, ...) -> [block of kRows tiles][product][out][kRows], zeros at the end.
template <class T>
LED_INLINE void pack_cells(const T* t, const Geometry& g, const Grid& grid, int64_t samples, Lines<T>& lines,
                           T* packed) {
  for (int64_t o = 0; o < g.out_channels; ++o) {
    factors_of_channel(t, g, grid, samples, o, lines);
    for (int64_t q = 0; q < kProducts; ++q)
      for (int64_t first = 0; first < lines.tiles; first += kRows)
        std::memcpy(packed + ((first * kProducts + q * kRows) * g.out_channels + o * kRows), lines.product(q) + first,
                    kRows * sizeof(T));
  }
}

// Coefficients from products along one axis.
template <class V> LED_INLINE void interpolate(const V& p0, V& p1, const V& p2) { p1 -= p0 + p2; }

// One block of channels of u of some samples: adds to planes [sample][cell][kColumns], which are zeroed.
template <class T>
LED_INLINE void transpose(const T* weight, const T* cells, const Geometry& g, const Grid& grid, int64_t samples,
                          int64_t channels, T* planes) {
  constexpr int64_t kTile = kRows * kColumns<T>;
  alignas(64) T products[kProducts * kTile];
  const int64_t depth = g.out_channels, columns = channels * kPhases, tiles = samples * grid.tiles();
  for (int64_t first = 0; first < tiles; first += kRows) {
    for (int64_t q = 0; q < kProducts; ++q, cells += depth * kRows)
      panel_product<T>(depth, cells, kRows, weight + q * depth * kColumns<T>, columns, products + q * kTile);
    for (int64_t r = 0; r < std::min<int64_t>(kRows, tiles - first); ++r) {
      const int64_t sample = (first + r) / grid.tiles(), tile = (first + r) % grid.tiles();
      const int64_t corner = sample * grid.cells() + tile / grid.columns * 2 * grid.width + tile % grid.columns * 2;
      for (int64_t v = 0; v < columns; v += kLanes<T>) {
        Vector<T> m[kProducts];
        for (int q = 0; q < kProducts; ++q) m[q] = at(products + q * kTile + r * kColumns<T> + v);
        for (int y = 0; y < 3; ++y) interpolate(m[3 * y], m[3 * y + 1], m[3 * y + 2]);
        for (int x = 0; x < 3; ++x) interpolate(m[x], m[x + 3], m[x + 6]);
        for (int y = 0; y < 3; ++y)
          for (int x = 0; x < 3; ++x) at(planes + (corner + y * grid.width + x) * kColumns<T> + v) += m[3 * y + x];
      }
    }
  }
}

// Channel c of a block of planes, cropped and with its phases interleaved: (height, width).
template <class T> LED_INLINE void assemble(const T* plane, const Geometry& g, const Grid& grid, int64_t c, T* u) {
  for (int64_t y = 0; y < g.height; ++y, u += g.width) {
    const int64_t Y = y + g.padding_h;
    const T* row = plane + Y / 2 * grid.width * kColumns<T> + c * kPhases + Y % 2 * 2;
    int64_t x = 0, X = g.padding_w;
    if (X % 2) u[x++] = row[X++ / 2 * kColumns<T> + 1];
    for (const T* from = row + X / 2 * kColumns<T>; x + 1 < g.width; x += 2, X += 2, from += kColumns<T>)
      u[x] = from[0], u[x + 1] = from[1];
    if (x < g.width) u[x] = row[X / 2 * kColumns<T>];
  }
}

}  // namespace led::perpendicular::karatsuba
