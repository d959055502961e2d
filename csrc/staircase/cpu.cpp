// The staircase on the CPU: tiles of one feature's elements, through whose steps a register of elements goes a few
// steps at a time. Chunks are fixed and their sums are added in order: the result does not depend on the threads.
#define LED_FUNCTION LED_INLINE
#include "staircase/backward.h"
#include "staircase/dispatch.h"

namespace led::staircase {
namespace {

// y += Σ a t and derivative += Σ a b s over the steps of a group.
template <int Group, class Real>
LED_INLINE void add_steps(const Real* x, Real* y, Real* derivative, int n, const Step<Real>* steps) {
  Step<Real> step[Group];
  for (int j = 0; j < Group; ++j) step[j] = steps[j];
  LED_SIMD
  for (int i = 0; i < n; ++i) {
    Real value = y[i], slope = derivative[i];
#pragma GCC unroll 8
    for (int j = 0; j < Group; ++j) {
      const auto t = terms_of(x[i], step[j]);
      value += step[j].height * t.value;
      slope += step[j].weight * t.slope;
    }
    y[i] = value;
    derivative[i] = slope;
  }
}

// One chunk: y, and each sample's Σ log dy/dx at logs[sample * stride].
template <class T>
LED_INLINE void forward_chunk(const T* x, T* y, double* logs, int64_t stride, const Layout& l, const Chunk& c,
                              const Staircases<RealOf<T>>& staircases) {
  using Real = RealOf<T>;
  std::vector<Step<Real>> steps(l.steps);
  for (int64_t feature = 0; feature < l.features; ++feature) {
    staircases.read_steps(feature, steps.data());
    const Real slope = staircases.slope[feature];
    for_each_tile(l, c, feature, [&](const Tile& tile) __attribute__((always_inline)) {
      Real in[kTile], out[kTile], derivative[kTile];
      const int n = tile.padded();
      read(x, tile, in);
      LED_SIMD
      for (int i = 0; i < n; ++i) out[i] = slope * in[i], derivative[i] = slope;
      int64_t k = 0;
      for (; k + 4 <= l.steps; k += 4) add_steps<4>(in, out, derivative, n, &steps[k]);
      for (; k < l.steps; ++k) add_steps<1>(in, out, derivative, n, &steps[k]);
      write(out, tile, y);
      LED_SIMD
      for (int i = 0; i < n; ++i) derivative[i] = log_of(derivative[i]);
      add_runs(derivative, tile, logs, stride);
    });
  }
}

// The cotangents of dy/dx: h = g / (dy/dx).
struct ForwardSeeds {
  static constexpr bool kInverse = false;

  template <class Real> LED_INLINE static void apply(Real*, Real* h, const Real* derivative, const Real*, int n) {
    LED_SIMD
    for (int i = 0; i < n; ++i) h[i] = h[i] / derivative[i];
  }
};

// One chunk: out = (score - (log dy/dx)') / (dy/dx).
template <class T>
LED_INLINE void score_chunk(const T* x, const T* score, T* out, const Layout& l, const Chunk& c,
                            const Staircases<RealOf<T>>& staircases) {
  using Real = RealOf<T>;
  std::vector<Step<Real>> steps(l.steps);
  for (int64_t feature = 0; feature < l.features; ++feature) {
    staircases.read_steps(feature, steps.data());
    const Real m = staircases.slope[feature];
    for_each_tile(l, c, feature, [&](const Tile& tile) __attribute__((always_inline)) {
      Real in[kTile], carried[kTile], derivative[kTile], curvature[kTile], value[kTile], of_step[kTile];
      const int n = tile.padded();
      read(x, tile, in);
      read(score, tile, carried);
      for (int i = 0; i < n; ++i) derivative[i] = m, curvature[i] = 0;
      for (const Step<Real>& step : steps) keep_step<true>(in, value, of_step, derivative, curvature, n, step);
      LED_SIMD
      for (int i = 0; i < n; ++i) carried[i] = (carried[i] + curvature[i] / derivative[i]) / derivative[i];
      write(carried, tile, out);
    });
  }
}

// One plain function a dtype, since target_clones does not apply to templates.
#define LED_KERNELS(T)                                                                                               \
  LED_MULTIVERSION void forward(const T* x, T* y, double* logs, int64_t stride, const Layout& l, const Chunk& c,     \
                                const Staircases<RealOf<T>>& staircases) {                                           \
    forward_chunk(x, y, logs, stride, l, c, staircases);                                                             \
  }                                                                                                                  \
  LED_MULTIVERSION void backward(const T* x, const T* gy, const RealOf<T>* gl, T* gx, double* sums, const Layout& l, \
                                 const Chunk& c, const Staircases<RealOf<T>>& staircases) {                          \
    backward_chunk<ForwardSeeds>(x, gy, gl, gx, sums, l, c, staircases);                                             \
  }                                                                                                                  \
  LED_MULTIVERSION void score(const T* x, const T* score, T* out, const Layout& l, const Chunk& c,                   \
                              const Staircases<RealOf<T>>& staircases) {                                             \
    score_chunk(x, score, out, l, c, staircases);                                                                    \
  }
LED_KERNELS(double)
LED_KERNELS(float)
LED_KERNELS(Half)
LED_KERNELS(BFloat16)
#undef LED_KERNELS

std::tuple<Tensor, Tensor> forward_cpu(const Tensor& x, const Tensor& centers, const Tensor& heights,
                                       const Tensor& steepness, const Tensor& slope) {
  return map_op(x, centers, heights, steepness, slope,
                [&](const Tensor& dense, Tensor& y, Tensor& log_abs_det, const Parameters& p, const Layout& l) {
                  dispatch("staircase", x.scalar_type(), [&](auto* type) {
                    using T = std::remove_pointer_t<decltype(type)>;
                    const Staircases<RealOf<T>> staircases(p, l.steps);
                    const auto* from = static_cast<const T*>(dense.const_data_ptr());
                    auto* to = static_cast<T*>(y.mutable_data_ptr());
                    map_chunks(l, 64, static_cast<RealOf<T>*>(log_abs_det.mutable_data_ptr()),
                               [&](const Chunk& c, double* logs, int64_t stride) {
                                 forward(from, to, logs, stride, l, c, staircases);
                               });
                  });
                });
}

Gradients backward_cpu(const Tensor& x, const Tensor& centers, const Tensor& heights, const Tensor& steepness,
                       const Tensor& slope, std::optional<Tensor> grad_y, std::optional<Tensor> grad_log) {
  return backward_op(x, centers, heights, steepness, slope, grad_y, grad_log,
                     [&](const Tensor& dense, const void* gy, const void* gl, Gradients& gradients, const Parameters& p,
                         const Layout& l) {
                       dispatch("staircase", x.scalar_type(), [&](auto* type) {
                         using T = std::remove_pointer_t<decltype(type)>;
                         const Staircases<RealOf<T>> staircases(p, l.steps);
                         auto* gx = static_cast<T*>(std::get<0>(gradients).mutable_data_ptr());
                         backward_chunks(l, staircases, gradients, [&](const Chunk& c, double* sums) {
                           backward(static_cast<const T*>(dense.const_data_ptr()), static_cast<const T*>(gy),
                                    static_cast<const RealOf<T>*>(gl), gx, sums, l, c, staircases);
                         });
                       });
                     });
}

Tensor score_cpu(const Tensor& x, const Tensor& score_of_x, const Tensor& centers, const Tensor& heights,
                 const Tensor& steepness, const Tensor& slope) {
  const Parameters p = check_parameters(x, centers, heights, steepness, slope);
  STD_TORCH_CHECK(score_of_x.scalar_type() == x.scalar_type() && same_sizes(score_of_x, x),
                  "staircase_score: the score must have x's shape and dtype");
  const MemoryFormat format = sample_dense_format(x);
  const Tensor dense = in_format(x, format), dense_score = in_format(score_of_x, format);
  Tensor out = empty_with_strides_of(dense);
  if (x.numel() == 0) return out;
  dispatch("staircase_score", x.scalar_type(), [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const Layout l = layout_of(dense, p);
    const Staircases<RealOf<T>> staircases(p, l.steps);
    const Chunks chunks(l, 4096, 64);
    torch::stable::parallel_for(0, chunks.count(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        score(static_cast<const T*>(dense.const_data_ptr()), static_cast<const T*>(dense_score.const_data_ptr()),
              static_cast<T*>(out.mutable_data_ptr()), l, chunks[i], staircases);
    });
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(led_fast, m) {
  m.def("staircase(Tensor x, Tensor centers, Tensor heights, Tensor steepness, Tensor slope) -> (Tensor, Tensor)");
  m.def(
      "staircase_backward(Tensor x, Tensor centers, Tensor heights, Tensor steepness, Tensor slope, Tensor? grad_y, "
      "Tensor? grad_log_abs_det) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "staircase_score(Tensor x, Tensor score, Tensor centers, Tensor heights, Tensor steepness, Tensor slope) -> "
      "Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(led_fast, CPU, m) {
  m.impl("staircase", TORCH_BOX(&forward_cpu));
  m.impl("staircase_backward", TORCH_BOX(&backward_cpu));
  m.impl("staircase_score", TORCH_BOX(&score_cpu));
}

}  // namespace led::staircase
