// ||x - û ûᵀ x|| with u = conv_transpose(t, weight) on the CPU: u is made some channels of some samples at a time,
// measured against x while it is in the cache, and dropped unless the gradient wants it. What is computed for a
// (sample, block of channels) depends on neither threads nor neighbours, and blocks are merged in order.
#include "perpendicular/op.h"

#include <cmath>

#include "common/dispatch.h"
#include "perpendicular/direct.h"
#include "perpendicular/karatsuba.h"
#include "perpendicular/measure.h"

namespace led::perpendicular {
namespace {

template <class T> struct Arrays {
  const T *x, *weight, *t;
  T* u;  // x's shape, or null
};

template <class T> struct Scratch {  // one thread's
  std::unique_ptr<T[]> weight, planes, tail, u;
};

// A run of channels of x that is computed at once.
struct Block {
  int64_t channel, channels;
};

// ---- direct ------------------------------------------------------------------------------------------------

template <class T>
LED_INLINE Moments direct_block(const Arrays<T>& a, const Geometry& g, const direct::Plane& plane, int64_t sample,
                                const Block& b, Scratch<T>& scratch) {
  const int64_t group = b.channel / g.group_in(), x_offset = (sample * g.in_channels + b.channel) * g.pixels();
  direct::pack_weight(a.weight + (group * g.group_out() * g.group_in() + b.channel % g.group_in()) * g.taps(), g,
                      b.channels * g.taps(), scratch.weight.get());
  std::memset(scratch.planes.get(), 0, b.channels * plane.size() * sizeof(T));
  direct::transpose(scratch.weight.get(), a.t + (sample * g.out_channels + group * g.group_out()) * g.cells(), g, plane,
                    b.channels, scratch.tail.get(), scratch.planes.get());
  Moments total{};
  for (int64_t c = 0; c < b.channels; ++c) {
    const int64_t offset = x_offset + c * g.pixels();
    T* u = a.u ? a.u + offset : scratch.u.get();
    direct::crop(scratch.planes.get() + c * plane.size(), g, plane, u);
    total = merge(total, measure(a.x + offset, u, g.pixels()));
  }
  return total;
}

LED_MULTIVERSION Moments run(const Arrays<float>& a, const Geometry& g, const direct::Plane& plane, int64_t sample,
                             const Block& b, Scratch<float>& scratch) {
  return direct_block(a, g, plane, sample, b, scratch);
}
LED_MULTIVERSION Moments run(const Arrays<double>& a, const Geometry& g, const direct::Plane& plane, int64_t sample,
                             const Block& b, Scratch<double>& scratch) {
  return direct_block(a, g, plane, sample, b, scratch);
}

// Moments of every (sample, block).
template <class T> std::vector<Moments> direct_moments(const Arrays<T>& a, const Geometry& g) {
  const direct::Plane plane(g);
  const int64_t most = direct::channels_per_block<T>(g);
  std::vector<Block> blocks;
  for (int64_t group = 0; group < g.groups; ++group)
    for (int64_t c = 0; c < g.group_in(); c += most)
      blocks.push_back({group * g.group_in() + c, std::min(most, g.group_in() - c)});
  const int64_t n = blocks.size(), work = g.cells() * g.group_out() * kColumns<T>;
  std::vector<Moments> moments(g.batch * n);
  torch::stable::parallel_for(0, g.batch * n, std::max<int64_t>(1, (1 << 20) / work), [&](int64_t begin, int64_t end) {
    Scratch<T> scratch{allocate<T>(g.group_out() * kColumns<T>), allocate<T>(most * plane.size()),
                       allocate<T>(g.group_out() * kRows), allocate<T>(g.pixels())};
    for (int64_t i = begin; i < end; ++i) moments[i] = run(a, g, plane, i / n, blocks[i % n], scratch);
  });
  return moments;
}

// ---- Karatsuba ---------------------------------------------------------------------------------------------

// Samples that fill whole rows of tiles where they are small.
int64_t samples_per_group(const karatsuba::Grid& grid) {
  return grid.tiles() % kRows == 0 || grid.tiles() > 4 * kRows ? 1 : std::max<int64_t>(1, kRows / grid.tiles());
}

template <class T>
LED_INLINE void karatsuba_block(const Arrays<T>& a, const Geometry& g, const karatsuba::Grid& grid, const T* cells,
                                int64_t first, int64_t samples, const Block& b, Scratch<T>& scratch, Moments* moments) {
  const int64_t plane = grid.cells() * kColumns<T>;
  std::memset(scratch.planes.get(), 0, samples * plane * sizeof(T));
  karatsuba::transpose(scratch.weight.get(), cells, g, grid, samples, b.channels, scratch.planes.get());
  for (int64_t s = 0; s < samples; ++s) {
    moments[s] = Moments{};
    for (int64_t c = 0; c < b.channels; ++c) {
      const int64_t offset = ((first + s) * g.in_channels + b.channel + c) * g.pixels();
      T* u = a.u ? a.u + offset : scratch.u.get();
      karatsuba::assemble(scratch.planes.get() + s * plane, g, grid, c, u);
      moments[s] = merge(moments[s], measure(a.x + offset, u, g.pixels()));
    }
  }
}

#define LED_KERNELS(T)                                                                                               \
  LED_MULTIVERSION void pack(const T* weight, const Geometry& g, const Block& b, T* packed) {                        \
    karatsuba::pack_weight(weight, g, b.channel, b.channels, packed);                                                \
  }                                                                                                                  \
  LED_MULTIVERSION void pack(const T* t, const Geometry& g, const karatsuba::Grid& grid, int64_t samples,            \
                             karatsuba::Lines<T>& lines, T* packed) {                                                \
    karatsuba::pack_cells(t, g, grid, samples, lines, packed);                                                       \
  }                                                                                                                  \
  LED_MULTIVERSION void run(const Arrays<T>& a, const Geometry& g, const karatsuba::Grid& grid, const T* cells,      \
                            int64_t first, int64_t samples, const Block& b, Scratch<T>& scratch, Moments* moments) { \
    karatsuba_block(a, g, grid, cells, first, samples, b, scratch, moments);                                         \
  }
LED_KERNELS(float)
LED_KERNELS(double)
#undef LED_KERNELS

// Moments of every (sample, block). Cells are packed for about kStretch tiles at a time, which bounds the workspace;
// every block of channels packs its weights once a stretch.
constexpr int64_t kStretch = 512;

template <class T> std::vector<Moments> karatsuba_moments(const Arrays<T>& a, const Geometry& g) {
  using namespace karatsuba;
  const Grid grid(g);
  const int64_t per_group = samples_per_group(grid),
                per_stretch = divide_up(divide_up(kStretch, grid.tiles()), per_group) * per_group;
  const int64_t group_size = divide_up(per_group * grid.tiles(), kRows) * kRows * kProducts * g.out_channels;
  const int64_t n = divide_up(g.in_channels, kChannels<T>);
  std::vector<Moments> moments(g.batch * n), of_block(n * g.batch);
  const auto cells =
      allocate<T>(std::min(per_stretch, divide_up(g.batch, per_group) * per_group) / per_group * group_size);
  for (int64_t start = 0; start < g.batch; start += per_stretch) {
    const int64_t stop = std::min(g.batch, start + per_stretch), groups = divide_up(stop - start, per_group);
    torch::stable::parallel_for(0, groups, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t first = start + i * per_group, samples = std::min(per_group, stop - first);
        Lines<T> lines(grid, samples);
        pack(a.t + first * g.out_channels * g.cells(), g, grid, samples, lines, cells.get() + i * group_size);
      }
    });
    torch::stable::parallel_for(0, n, 1, [&](int64_t begin, int64_t end) {
      Scratch<T> scratch{allocate<T>(kProducts * g.out_channels * kColumns<T>),
                         allocate<T>(per_group * grid.cells() * kColumns<T>), nullptr, allocate<T>(g.pixels())};
      for (int64_t c = begin; c < end; ++c) {
        const Block block{c * kChannels<T>, std::min(kChannels<T>, g.in_channels - c * kChannels<T>)};
        pack(a.weight, g, block, scratch.weight.get());
        for (int64_t i = 0; i < groups; ++i) {
          const int64_t first = start + i * per_group, samples = std::min(per_group, stop - first);
          run(a, g, grid, cells.get() + i * group_size, first, samples, block, scratch,
              of_block.data() + c * g.batch + first);
        }
      }
    });
  }
  for (int64_t s = 0; s < g.batch; ++s)
    for (int64_t c = 0; c < n; ++c) moments[s * n + c] = of_block[c * g.batch + s];
  return moments;
}

// ---- the choice, and what is common ------------------------------------------------------------------------

// Packing the weights for Karatsuba costs as much as its products save on about 16 tiles (bench/test_perpendicular.py).
template <class T> bool prefer_karatsuba(const Geometry& g) {
  return karatsuba::applies(g) && g.in_channels > 4 && g.batch * karatsuba::Grid(g).tiles() >= 16;
}

template <class T> void finish(const std::vector<Moments>& moments, int64_t samples, T* norm, T* coefficients) {
  const int64_t n = moments.size() / samples;
  for (int64_t s = 0; s < samples; ++s) {
    Moments total{};
    for (int64_t i = 0; i < n; ++i) total = merge(total, moments[s * n + i]);
    norm[s] = T(std::sqrt(total.residual));
    coefficients[s] = T(coefficient(total.ux, total.uu));
  }
}

std::tuple<Tensor, Tensor, Tensor> norm_cpu(const Tensor& x, const Tensor& weight, const Tensor& t,
                                            std::vector<int64_t> stride, std::vector<int64_t> padding,
                                            std::vector<int64_t> dilation, int64_t groups, bool keep_u) {
  const Geometry g = geometry_of(x, weight, t, stride, padding, dilation, groups);
  return norm_op(
      x, weight, t, g, keep_u,
      [&](const Tensor& xc, const Tensor& wc, const Tensor& tc, Tensor& norm, Tensor& coefficient, void* u) {
        dispatch_real("perpendicular_norm", x.scalar_type(), [&](auto* type) {
          using T = std::remove_pointer_t<decltype(type)>;
          const Arrays<T> a{static_cast<const T*>(xc.const_data_ptr()), static_cast<const T*>(wc.const_data_ptr()),
                            static_cast<const T*>(tc.const_data_ptr()), static_cast<T*>(u)};
          STD_TORCH_CHECK(direct::applies<T>(g), "perpendicular_norm: at most ", kColumns<T>, " taps, got ", g.taps());
          finish(prefer_karatsuba<T>(g) ? karatsuba_moments(a, g) : direct_moments(a, g), g.batch,
                 static_cast<T*>(norm.mutable_data_ptr()), static_cast<T*>(coefficient.mutable_data_ptr()));
        });
      });
}

LED_MULTIVERSION Moments measure_all(const float* x, const float* u, int64_t n) { return measure(x, u, n); }
LED_MULTIVERSION Moments measure_all(const double* x, const double* u, int64_t n) { return measure(x, u, n); }

std::tuple<Tensor, Tensor> norm_to_cpu(const Tensor& x, const Tensor& u) {
  return norm_to_op(x, u, [&](const Tensor& xc, const Tensor& uc, Tensor& norm, Tensor& coefficient, int64_t size) {
    dispatch_real("perpendicular_norm", x.scalar_type(), [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      constexpr int64_t chunk = 8 * kBlock;
      const auto *px = static_cast<const T*>(xc.const_data_ptr()), *pu = static_cast<const T*>(uc.const_data_ptr());
      const int64_t samples = x.size(0), n = std::max<int64_t>(1, divide_up(size, chunk));
      std::vector<Moments> moments(samples * n);
      torch::stable::parallel_for(0, samples * n, std::max<int64_t>(1, chunk / std::max<int64_t>(1, size)),
                                  [&](int64_t begin, int64_t end) {
                                    for (int64_t i = begin; i < end; ++i) {
                                      const int64_t start = i % n * chunk, offset = i / n * size + start;
                                      moments[i] = measure_all(px + offset, pu + offset, std::min(chunk, size - start));
                                    }
                                  });
      finish(moments, samples, static_cast<T*>(norm.mutable_data_ptr()),
             static_cast<T*>(coefficient.mutable_data_ptr()));
    });
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(led_fast, CPU, m) {
  m.impl("perpendicular_norm", TORCH_BOX(&norm_cpu));
  m.impl("perpendicular_norm_to", TORCH_BOX(&norm_to_cpu));
}

}  // namespace led::perpendicular
