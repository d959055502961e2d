// The gradients of the perpendicular norm on the CPU for DCGAN's kernels: grad_x = scale (x - a u), and, with
// v = -a grad_x, the gradients that u = conv_transpose(t, weight) passes on to weight and t. A stretch of samples at a
// time, so that the workspace does not grow with the batch; stretches are added in order.
#include <vector>

#include "common/dispatch.h"
#include "perpendicular/karatsuba_backward.h"
#include "perpendicular/op.h"

namespace led::perpendicular {
namespace {
using namespace karatsuba;

constexpr int64_t kStretch = 256;  // tiles: long enough to hide the packing of weights, short enough for the cache

template <class T> struct Arrays {
  const T *x, *u, *weight, *t, *coefficient, *scale;
  T *grad_x, *grad_weight, *grad_t;  // the last two may be null
};

// A stretch: its samples, and room for so many tiles.
struct Stretch {
  int64_t first, samples, tiles, room;
};

template <class T>
LED_INLINE void differences_of_block(const Arrays<T>& a, const Geometry& g, const Grid& grid, const Stretch& s,
                                     int64_t channel, int64_t channels, T* plane, T* packed) {
  for (int64_t i = 0; i < s.samples; ++i) {
    const int64_t sample = s.first + i;
    std::memset(plane, 0, grid.cells() * kColumns<T> * sizeof(T));
    for (int64_t c = 0; c < channels; ++c) {
      const int64_t offset = (sample * g.in_channels + channel + c) * g.pixels();
      scatter_gradient(a.x + offset, a.u + offset, a.coefficient[sample], a.scale[sample], g, grid, c,
                       a.grad_x + offset, plane);
    }
    pack_differences(plane, grid, channels * kPhases, s.room * kColumns<T>, packed + i * grid.tiles() * kColumns<T>);
  }
}

#define LED_KERNELS(T)                                                                                                \
  LED_MULTIVERSION void make_differences(const Arrays<T>& a, const Geometry& g, const Grid& grid, const Stretch& s,   \
                                         int64_t channel, int64_t channels, T* plane, T* packed) {                    \
    differences_of_block(a, g, grid, s, channel, channels, plane, packed);                                            \
  }                                                                                                                   \
  LED_MULTIVERSION void make_rows(const T* t, const Geometry& g, const Grid& grid, int64_t samples, int64_t first,    \
                                  int64_t room, Lines<T>& lines, T* packed) {                                         \
    pack_rows(t, g, grid, samples, first, room, lines, packed);                                                       \
  }                                                                                                                   \
  LED_MULTIVERSION void add_products(const T* rows, const T* differences, const Geometry& g, const Stretch& s,        \
                                     int64_t columns, T* sums) {                                                      \
    add_weight_products(rows, differences, g.out_channels, s.tiles, s.room, columns, s.first == 0, sums);             \
  }                                                                                                                   \
  LED_MULTIVERSION void write_gradient(const T* sums, const Geometry& g, int64_t channel, int64_t channels, T* to) {  \
    write_weight_gradient(sums, g, channel, channels, to);                                                            \
  }                                                                                                                   \
  LED_MULTIVERSION void make_t(const T* differences, const T* weight, T* packed, const Geometry& g, const Grid& grid, \
                               const Stretch& s, int64_t first, int64_t outs, T* products, T* grad_t) {               \
    pack_weight_outputs(weight, g, first, outs, packed);                                                              \
    convolve(differences, packed, g, grid, s.samples, s.room, first, outs, products, grad_t);                         \
  }
LED_KERNELS(float)
LED_KERNELS(double)
#undef LED_KERNELS

template <class T> void backward(const Arrays<T>& a, const Geometry& g) {
  const Grid grid(g);
  const int64_t samples = std::min(g.batch, divide_up(kStretch, grid.tiles()));
  const int64_t room = divide_up(samples * grid.tiles(), kRows) * kRows;
  const int64_t in_blocks = divide_up(g.in_channels, kChannels<T>), out_blocks = divide_up(g.out_channels, kColumns<T>);
  const int64_t block = kProducts * room * kColumns<T>,
                sums_size = kProducts * divide_up(g.out_channels, kRows) * kRows * kColumns<T>;
  const auto differences = allocate<T>(in_blocks * block);
  // Tiles of rows reach past the last channel.
  const auto rows = allocate<T>(a.grad_weight ? (kProducts * g.out_channels + kRows) * room : 0);
  const auto sums = allocate<T>(a.grad_weight ? in_blocks * sums_size : 0);
  const auto channels_of = [&](int64_t b) { return std::min(kChannels<T>, g.in_channels - b * kChannels<T>); };
  for (int64_t first = 0; first < g.batch; first += samples) {
    const Stretch s{first, std::min(samples, g.batch - first), std::min(samples, g.batch - first) * grid.tiles(), room};
    if (a.grad_weight) {
      torch::stable::parallel_for(0, s.samples, 1, [&](int64_t begin, int64_t end) {
        Lines<T> lines(grid, end - begin);
        make_rows(a.t + (first + begin) * g.out_channels * g.cells(), g, grid, end - begin, begin * grid.tiles(), room,
                  lines, rows.get());
      });
    }
    torch::stable::parallel_for(0, in_blocks, 1, [&](int64_t begin, int64_t end) {
      const auto plane = allocate<T>(grid.cells() * kColumns<T>);
      for (int64_t b = begin; b < end; ++b) {
        T* const packed = differences.get() + b * block;
        make_differences(a, g, grid, s, b * kChannels<T>, channels_of(b), plane.get(), packed);
        if (a.grad_weight) add_products(rows.get(), packed, g, s, channels_of(b) * kPhases, sums.get() + b * sums_size);
      }
    });
    if (!a.grad_t) continue;
    torch::stable::parallel_for(0, out_blocks, 1, [&](int64_t begin, int64_t end) {
      const auto packed = allocate<T>(kProducts * g.in_channels * kPhases * kColumns<T>), products = allocate<T>(block);
      for (int64_t b = begin; b < end; ++b)
        make_t(differences.get(), a.weight, packed.get(), g, grid, s, b * kColumns<T>,
               std::min(kColumns<T>, g.out_channels - b * kColumns<T>), products.get(),
               a.grad_t + first * g.out_channels * g.cells());
    });
  }
  if (!a.grad_weight) return;
  torch::stable::parallel_for(0, in_blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b)
      write_gradient(sums.get() + b * sums_size, g, b * kChannels<T>, channels_of(b), a.grad_weight);
  });
}

std::tuple<Tensor, Tensor, Tensor> backward_cpu(const Tensor& x, const Tensor& weight, const Tensor& t, const Tensor& u,
                                                const Tensor& coefficient, const Tensor& scale,
                                                std::vector<int64_t> stride, std::vector<int64_t> padding,
                                                std::vector<int64_t> dilation, int64_t groups, bool need_weight,
                                                bool need_t) {
  const Geometry g = geometry_of(x, weight, t, stride, padding, dilation, groups);
  STD_TORCH_CHECK(applies(g), "perpendicular_norm_backward: for 4x4 kernels of stride 2");
  STD_TORCH_CHECK(coefficient.numel() == g.batch && scale.numel() == g.batch &&
                      coefficient.scalar_type() == x.scalar_type() && scale.scalar_type() == x.scalar_type(),
                  "perpendicular_norm_backward: coefficient and scale must have one value a sample");
  const Tensor coefficients = dense(coefficient), scales = dense(scale);
  return backward_op(x, weight, t, u, g, need_weight, need_t,
                     [&](const Tensor& xc, const Tensor& wc, const Tensor& tc, const Tensor& uc, Tensor& grad_x,
                         void* grad_weight, void* grad_t) {
                       dispatch_real("perpendicular_norm", x.scalar_type(), [&](auto* type) {
                         using T = std::remove_pointer_t<decltype(type)>;
                         const auto data = [](const Tensor& v) { return static_cast<const T*>(v.const_data_ptr()); };
                         backward(Arrays<T>{data(xc), data(uc), data(wc), data(tc), data(coefficients), data(scales),
                                            static_cast<T*>(grad_x.mutable_data_ptr()), static_cast<T*>(grad_weight),
                                            static_cast<T*>(grad_t)},
                                  g);
                       });
                     });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(led_fast, CPU, m) { m.impl("perpendicular_norm_backward", TORCH_BOX(&backward_cpu)); }

}  // namespace led::perpendicular
