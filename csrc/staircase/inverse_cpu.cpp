// The staircase's inverse on the CPU: the elements of a block search side by side until all have found.
#include <limits>

#define LED_FUNCTION LED_INLINE
#include "staircase/backward.h"
#include "staircase/dispatch.h"
#include "staircase/solve.h"

namespace led::staircase {
namespace {

constexpr int kBlock = 64;  // elements that search together

// The staircase at n places.
template <class Real> struct Locals {
  Real value[kBlock], derivative[kBlock], curvature[kBlock];

  template <int Group> LED_INLINE void add_steps(const Real* x, int n, const Step<Real>* steps) {
    Step<Real> step[Group];
    for (int j = 0; j < Group; ++j) step[j] = steps[j];
    LED_SIMD
    for (int i = 0; i < n; ++i) {
      Local<Real> at{value[i], derivative[i], curvature[i]};
#pragma GCC unroll 8
      for (int j = 0; j < Group; ++j) add_step(at, x[i], step[j]);
      value[i] = at.value, derivative[i] = at.derivative, curvature[i] = at.curvature;
    }
  }
  LED_INLINE void evaluate(const Real* x, int n, Real slope, const std::vector<Step<Real>>& steps) {
    LED_SIMD
    for (int i = 0; i < n; ++i) value[i] = slope * x[i], derivative[i] = slope, curvature[i] = 0;
    size_t k = 0;
    for (; k + 4 <= steps.size(); k += 4) add_steps<4>(x, n, &steps[k]);
    for (; k < steps.size(); ++k) add_steps<1>(x, n, &steps[k]);
  }
};

// One feature's staircase and the places where it bends, in order, from minus to plus infinity.
template <class Real> struct Feature {
  std::vector<Step<Real>> steps;
  std::vector<Real> places, values;
  Scale<Real> scale;

  LED_INLINE void read(const Staircases<Real>& staircases, int64_t feature) {
    steps.resize(staircases.steps);
    staircases.read_steps(feature, steps.data());
    const size_t count = kPlaces * steps.size();
    std::vector<Real> unsorted(count);
    Real reach = 0, steepest = 0;
    for (size_t k = 0; k < steps.size(); ++k) {
      const Real steepness = staircases.steepness[feature * steps.size() + k];
      reach += steps[k].height;
      steepest = maximum(steepest, steepness);
      for (int i = 0; i < kPlaces; ++i) unsorted[kPlaces * k + i] = place_of(i, steps[k].center, steepness);
    }
    scale = {staircases.slope[feature], reach, Precision<Real>::root / steepest};
    sort(unsorted.data(), count);
    Locals<Real> at;
    for (size_t i = 0; i < count; i += kBlock) {
      const int n = int(std::min<size_t>(kBlock, count - i));
      at.evaluate(&places[i + 1], n, scale.slope, steps);
      std::copy(at.value, at.value + n, &values[i + 1]);
    }
  }

 private:
  // By counting, which takes whole registers at once.
  LED_INLINE void sort(const Real* unsorted, size_t count) {
    using Int = typename Format<Real>::Int;
    const Real infinity = std::numeric_limits<Real>::infinity();
    places.assign(count + 2, infinity);
    places[0] = -infinity;
    values = places;
    std::vector<Int> smaller(count);
    for (size_t j = 0; j < count; ++j) {
      const Real place = unsorted[j];
      LED_SIMD
      for (size_t i = 0; i < j; ++i) smaller[i] += place < unsorted[i] ? 1 : 0;
      LED_SIMD
      for (size_t i = j + 1; i < count; ++i) smaller[i] += place <= unsorted[i] ? 1 : 0;
    }
    for (size_t i = 0; i < count; ++i) places[1 + smaller[i]] = unsorted[i];
  }
};

// x and dy/dx for a block of n elements y.
template <class Real>
LED_INLINE void solve(const Real* y, Real* x, Real* derivative, int n, const Feature<Real>& feature) {
  using Int = typename Format<Real>::Int;
  const Scale<Real> scale = feature.scale;
  Int open[kBlock] = {};  // first: how many places lie below
  for (size_t k = 1; k + 1 < feature.values.size(); k += kPlaces) {
    Real value[kPlaces];
    std::copy_n(&feature.values[k], kPlaces, value);
    LED_SIMD
    for (int i = 0; i < n; ++i) {
#pragma GCC unroll 6
      for (int j = 0; j < kPlaces; ++j) open[i] += value[j] <= y[i] ? 1 : 0;
    }
  }
  Real low[kBlock], high[kBlock], moved[kBlock];
  const Real *places = feature.places.data(), *values = feature.values.data();
  LED_SIMD
  for (int i = 0; i < n; ++i) {
    const Int k = open[i];
    const Search<Real> s = start({places[k], places[k + 1], values[k], values[k + 1]}, y[i], scale);
    x[i] = s.x, low[i] = s.low, high[i] = s.high, moved[i] = s.moved, open[i] = 1;
  }
  Locals<Real> at;
  Int left = 1;
  for (int step = 0; left && step < Precision<Real>::most_steps; ++step) {
    at.evaluate(x, n, scale.slope, feature.steps);
    left = 0;
    _Pragma("omp simd reduction(|:left)") for (int i = 0; i < n; ++i) {
      Search<Real> s{x[i], low[i], high[i], moved[i]};
      Real slope;
      const bool ends = advance(s, slope, y[i], {at.value[i], at.derivative[i], at.curvature[i]}, scale);
      const bool active = open[i] != 0;
      x[i] = active ? s.x : x[i];
      derivative[i] = active ? slope : derivative[i];
      low[i] = s.low, high[i] = s.high, moved[i] = s.moved;
      open[i] = active & !ends ? 1 : 0;
      left |= open[i];
    }
  }
  LED_SIMD
  for (int i = 0; i < n; ++i) x[i] = solution(x[i], derivative[i]);
}

// One chunk: x, a copy of it that is not rounded, and each sample's -Σ log dy/dx at logs[sample * stride].
template <class T>
LED_INLINE void inverse_chunk(const T* y, T* x, RealOf<T>* kept, double* logs, int64_t stride, const Layout& l,
                              const Chunk& c, const std::vector<Feature<RealOf<T>>>& features) {
  using Real = RealOf<T>;
  for (int64_t f = 0; f < l.features; ++f) {
    const Feature<Real>& feature = features[f];
    for_each_tile(l, c, f, [&](const Tile& tile) __attribute__((always_inline)) {
      Real in[kTile], out[kTile], derivative[kTile] = {};
      const int n = tile.padded();
      read(y, tile, in);
      for (int i = tile.count(); i < n; ++i) in[i] = std::numeric_limits<Real>::quiet_NaN();  // ends at once
      for (int i = 0; i < n; i += kBlock) solve(in + i, out + i, derivative + i, std::min(kBlock, n - i), feature);
      write(out, tile, x);
      if (kept) write(out, tile, kept);
      LED_SIMD
      for (int i = 0; i < n; ++i) derivative[i] = -log_of(derivative[i]);
      add_runs(derivative, tile, logs, stride);
    });
  }
}

// For cotangents gx of x and g of -Σ log D: h = -g / D, and that of y is (gx + h dD/dx) / D, minus which is
// what the staircase's own value gets.
struct InverseSeeds {
  static constexpr bool kInverse = true;

  template <class Real>
  LED_INLINE static void apply(Real* g, Real* h, const Real* derivative, const Real* curvature, int n) {
    LED_SIMD
    for (int i = 0; i < n; ++i) {
      const Real reciprocal = 1 / derivative[i];
      h[i] = -h[i] * reciprocal;
      g[i] = (h[i] * curvature[i] - g[i]) * reciprocal;
    }
  }
};

#define LED_KERNELS(T)                                                                                            \
  LED_MULTIVERSION void inverse(const T* y, T* x, RealOf<T>* kept, double* logs, int64_t stride, const Layout& l, \
                                const Chunk& c, const std::vector<Feature<RealOf<T>>>& features) {                \
    inverse_chunk(y, x, kept, logs, stride, l, c, features);                                                      \
  }
LED_KERNELS(double)
LED_KERNELS(float)
LED_KERNELS(Half)
LED_KERNELS(BFloat16)
#undef LED_KERNELS

#define LED_KERNELS(T)                                                                                               \
  LED_MULTIVERSION void read_feature(Feature<T>& feature, const Staircases<T>& staircases, int64_t index) {          \
    feature.read(staircases, index);                                                                                 \
  }                                                                                                                  \
  LED_MULTIVERSION void inverse_backward(const T* x, const T* gx, const T* gl, T* gy, double* sums, const Layout& l, \
                                         const Chunk& c, const Staircases<T>& staircases) {                          \
    backward_chunk<InverseSeeds>(x, gx, gl, gy, sums, l, c, staircases);                                             \
  }
LED_KERNELS(double)
LED_KERNELS(float)
#undef LED_KERNELS

std::tuple<Tensor, Tensor, Tensor> inverse_cpu(const Tensor& y, const Tensor& centers, const Tensor& heights,
                                               const Tensor& steepness, const Tensor& slope, bool keep) {
  return inverse_op(
      y, centers, heights, steepness, slope, keep,
      [&](const Tensor& dense, Tensor& x, Tensor& log_abs_det, void* kept, const Parameters& p, const Layout& l) {
        dispatch("staircase_inverse", y.scalar_type(), [&](auto* type) {
          using T = std::remove_pointer_t<decltype(type)>;
          using Real = RealOf<T>;
          const Staircases<Real> staircases(p, l.steps);
          std::vector<Feature<Real>> features(l.features);
          torch::stable::parallel_for(0, l.features, 32, [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) read_feature(features[i], staircases, i);
          });
          const auto* from = static_cast<const T*>(dense.const_data_ptr());
          auto* to = static_cast<T*>(x.mutable_data_ptr());
          map_chunks(l, 64, static_cast<Real*>(log_abs_det.mutable_data_ptr()),
                     [&](const Chunk& c, double* logs, int64_t stride) {
                       inverse(from, to, static_cast<Real*>(kept), logs, stride, l, c, features);
                     });
        });
      });
}

Gradients inverse_backward_cpu(const Tensor& x, const Tensor& centers, const Tensor& heights, const Tensor& steepness,
                               const Tensor& slope, std::optional<Tensor> grad_x, std::optional<Tensor> grad_log) {
  return backward_op(x, centers, heights, steepness, slope, grad_x, grad_log,
                     [&](const Tensor& dense, const void* gx, const void* gl, Gradients& gradients, const Parameters& p,
                         const Layout& l) {
                       dispatch_real("staircase_inverse_backward", x.scalar_type(), [&](auto* type) {
                         using T = std::remove_pointer_t<decltype(type)>;
                         const Staircases<T> staircases(p, l.steps);
                         auto* gy = static_cast<T*>(std::get<0>(gradients).mutable_data_ptr());
                         backward_chunks(l, staircases, gradients, [&](const Chunk& c, double* sums) {
                           inverse_backward(static_cast<const T*>(dense.const_data_ptr()), static_cast<const T*>(gx),
                                            static_cast<const T*>(gl), gy, sums, l, c, staircases);
                         });
                       });
                     });
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(led_fast, m) {
  m.def(
      "staircase_inverse(Tensor y, Tensor centers, Tensor heights, Tensor steepness, Tensor slope, bool keep) -> "
      "(Tensor, Tensor, Tensor)");
  m.def(
      "staircase_inverse_backward(Tensor x, Tensor centers, Tensor heights, Tensor steepness, Tensor slope, Tensor? "
      "grad_x, Tensor? grad_log_abs_det) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(led_fast, CPU, m) {
  m.impl("staircase_inverse", TORCH_BOX(&inverse_cpu));
  m.impl("staircase_inverse_backward", TORCH_BOX(&inverse_backward_cpu));
}

}  // namespace led::staircase
