// The transposed convolution u = conv_transpose(t, weight) of any geometry, some channels of one sample at a time:
// a matrix product (cells x out_channels) by (out_channels x [channel][tap]), whose tiles are added to planes that
// stay in the cache. Both factors have this layout as they are.
#pragma once
#include <cstring>

#include "perpendicular/geometry.h"
#include "perpendicular/panel.h"

namespace led::perpendicular::direct {

// u before the padding is cropped.
struct Plane {
  int64_t height, width;

  explicit Plane(const Geometry& g)
      : height(std::max((g.out_height - 1) * g.stride_h + g.dilation_h * (g.kernel_h - 1) + 1, g.height + g.padding_h)),
        width(std::max((g.out_width - 1) * g.stride_w + g.dilation_w * (g.kernel_w - 1) + 1, g.width + g.padding_w)) {}
  int64_t size() const { return height * width; }
};

// A channel whose taps fill more than one tile is not for this file.
template <class T> bool applies(const Geometry& g) { return g.taps() <= kColumns<T>; }
template <class T> int64_t channels_per_block(const Geometry& g) { return kColumns<T> / g.taps(); }

// `columns` of the [channel][tap] axis from weight on -> [out][kColumns].
template <class T> LED_INLINE void pack_weight(const T* weight, const Geometry& g, int64_t columns, T* packed) {
  const int64_t row = g.group_in() * g.taps();
  for (int64_t o = 0; o < g.group_out(); ++o)
    std::memcpy(packed + o * kColumns<T>, weight + o * row, columns * sizeof(T));
}

// The last cells of every channel, fewer than kRows -> [out][kRows], zeros at the end.
template <class T> LED_INLINE void pack_tail(const T* t, const Geometry& g, int64_t cells, T* packed) {
  for (int64_t o = 0; o < g.group_out(); ++o)
    for (int64_t r = 0; r < kRows; ++r) *packed++ = r < cells ? t[o * g.cells() + r] : 0;
}

// Adds the patches (`channels` x taps) of one cell to the planes; corner is its place in the first of them.
template <class T, int known_width>
LED_INLINE void add_patch(const T* patch, const Geometry& g, const Plane& plane, int64_t channels, T* corner) {
  const int64_t width = known_width ? known_width : g.kernel_w, step = known_width ? 1 : g.dilation_w;
  for (int64_t c = 0; c < channels; ++c, corner += plane.size())
    for (int64_t ky = 0; ky < g.kernel_h; ++ky, patch += width) {
      T* to = corner + ky * g.dilation_h * plane.width;
      for (int64_t kx = 0; kx < width; ++kx) to[kx * step] += patch[kx];
    }
}

// Adds `channels` channels of u to their planes, which are zeroed. t is one sample's, of the channels' group; `tail`
// has room for [out][kRows].
template <class T>
LED_INLINE void transpose(const T* weight, const T* t, const Geometry& g, const Plane& plane, int64_t channels, T* tail,
                          T* planes) {
  alignas(64) T tile[kRows * kColumns<T>];
  for (int64_t first = 0; first < g.cells(); first += kRows, t += kRows) {
    const int64_t rows = std::min<int64_t>(kRows, g.cells() - first);
    if (rows < kRows) pack_tail(t, g, rows, tail);
    panel_product<T>(g.group_out(), rows < kRows ? tail : t, rows < kRows ? kRows : g.cells(), weight,
                     channels * g.taps(), tile);
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t i = (first + r) / g.out_width, j = (first + r) % g.out_width;
      T* corner = planes + i * g.stride_h * plane.width + j * g.stride_w;
      if (g.kernel_w == 4 && g.dilation_w == 1) add_patch<T, 4>(tile + r * kColumns<T>, g, plane, channels, corner);
      else add_patch<T, 0>(tile + r * kColumns<T>, g, plane, channels, corner);
    }
  }
}

template <class T> LED_INLINE void crop(const T* plane, const Geometry& g, const Plane& p, T* u) {
  plane += g.padding_h * p.width + g.padding_w;
  for (int64_t y = 0; y < g.height; ++y) std::memcpy(u + y * g.width, plane + y * p.width, g.width * sizeof(T));
}

}  // namespace led::perpendicular::direct
