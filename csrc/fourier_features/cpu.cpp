// Fourier features on the CPU: a row at a time, whose phases, sines and cosines stay in registers or the first-level
// cache. What is computed for a feature depends on neither threads nor neighbours.
#include <algorithm>
#include <vector>

#include "common/dispatch.h"
#include "fourier_features/math.h"
#include "fourier_features/op.h"

namespace led::fourier_features {
namespace {

constexpr int kBlock = 128;    // directions at once
constexpr int kRegister = 16;  // loops run over multiples of it, so that no scalar remainder is left

constexpr int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// P, filled up by zeros to whole registers of directions and to pairs of coordinates.
template <class Real> struct Projection {
  int64_t dimension, directions, pairs, columns;
  std::vector<Real> numbers;  // [coordinate][column]
  std::vector<Real> largest;  // |P| of a coordinate

  explicit Projection(const Sizes& s)
      : dimension(s.dimension),
        directions(s.directions),
        pairs(std::max<int64_t>(1, (s.dimension + 1) / 2)),
        columns(round_up(s.directions, kRegister)),
        numbers(2 * pairs * columns),
        largest(2 * pairs) {}

  template <class T> LED_INLINE void read(const T* projection) {
    for (int64_t d = 0; d < dimension; ++d) {
      Real most = 0;
      for (int64_t k = 0; k < directions; ++k) {
        const Real number = load(projection[d * directions + k]), size = number < 0 ? -number : number;
        numbers[d * columns + k] = number;
        most = maximum(size, most);
      }
      largest[d] = most;
    }
  }

  // Whether all phases of x are within reach, for certain. A NaN among P's numbers is its own result in any case.
  LED_INLINE bool within_reach_of(const Real* x) const {
    Real most = 0;
    for (int64_t d = 0; d < dimension; ++d) most += largest[d] * (x[d] < 0 ? -x[d] : x[d]);
    return within_reach(most);
  }
};

// Phases of `count` columns from `column` on, count a multiple of kRegister.
template <class Real>
LED_INLINE void phases_of(const Real* x, const Projection<Real>& p, int64_t column, int count, Real* phases) {
  const Real* row = p.numbers.data() + column;
  for (int64_t pair = 0; pair < p.pairs; ++pair, row += 2 * p.columns, x += 2) {
    const Real *const next = row + p.columns, first = x[0], second = x[1];
    if (pair == 0) {
      LED_SIMD
      for (int i = 0; i < count; ++i) phases[i] = first * row[i] + second * next[i];
    } else {
      LED_SIMD
      for (int i = 0; i < count; ++i) phases[i] += first * row[i] + second * next[i];
    }
  }
}

// A function, because the vectoriser takes no structs that a loop itself declares.
template <class T, class Real> LED_INLINE void store_within_reach(Real phase, T* sine, T* cosine) {
  const auto both = sine_cosine_within_reach(phase);
  store(sine, both.sine);
  store(cosine, both.cosine);
}

// count is a multiple of kRegister.
template <class T, class Real> LED_INLINE void sines_and_cosines(const Real* phases, int count, T* sines, T* cosines) {
  LED_SIMD
  for (int i = 0; i < count; ++i) store_within_reach(phases[i], sines + i, cosines + i);
}

template <class T, class Real> LED_INLINE void mend_beyond_reach(const Real* phases, int n, T* sines, T* cosines) {
  for (int i = 0; i < n; ++i) {
    if (within_reach(phases[i])) continue;
    const auto both = sine_cosine_beyond_reach(phases[i]);
    store(sines + i, both.sine);
    store(cosines + i, both.cosine);
  }
}

// Features of one row, whose x is given in both types.
template <class T, class Real>
LED_INLINE void forward_row(const T* x, const Real* wide, const Projection<Real>& p, T* features) {
  std::copy_n(x, p.dimension, features);
  T *sines = features + p.dimension, *cosines = sines + p.directions;
  const bool all_within_reach = p.within_reach_of(wide);
  Real phases[kBlock];
  for (int64_t k = 0; k < p.directions; k += kBlock, sines += kBlock, cosines += kBlock) {
    const int n = int(std::min<int64_t>(kBlock, p.directions - k)), count = int(round_up(n, kRegister));
    phases_of(wide, p, k, count, phases);
    if (n == count) {
      sines_and_cosines(phases, count, sines, cosines);
    } else {
      T more_sines[kBlock], more_cosines[kBlock];
      sines_and_cosines(phases, count, more_sines, more_cosines);
      std::copy_n(more_sines, n, sines);
      std::copy_n(more_cosines, n, cosines);
    }
    if (!all_within_reach) mend_beyond_reach(phases, n, sines, cosines);
  }
}

template <class T>
LED_INLINE void forward_rows(const T* x, T* features, const Projection<RealOf<T>>& p, int64_t begin, int64_t end) {
  std::vector<RealOf<T>> wide(2 * p.pairs);
  for (int64_t i = begin; i < end; ++i) {
    const T* const row = x + i * p.dimension;
    for (int64_t d = 0; d < p.dimension; ++d) wide[d] = load(row[d]);
    forward_row(row, wide.data(), p, features + i * (p.dimension + 2 * p.directions));
  }
}

// grad_x of one row, in sums.
template <class T, class Real>
LED_INLINE void backward_row(const T* grad, const T* features, const Projection<Real>& p, Real* sums) {
  for (int64_t d = 0; d < p.dimension; ++d) sums[d] = load(grad[d]);
  const T *const grad_sines = grad + p.dimension, *const grad_cosines = grad_sines + p.directions;
  const T *const sines = features + p.dimension, *const cosines = sines + p.directions;
  Real of_phases[kBlock];
  for (int64_t k = 0; k < p.directions; k += kBlock) {
    const int n = int(std::min<int64_t>(kBlock, p.directions - k)), count = int(round_up(n, kRegister));
    LED_SIMD
    for (int i = 0; i < n; ++i)
      of_phases[i] = load(grad_sines[k + i]) * load(cosines[k + i]) - load(grad_cosines[k + i]) * load(sines[k + i]);
    for (int i = n; i < count; ++i) of_phases[i] = 0;
    const Real* row = p.numbers.data() + k;
    for (int64_t pair = 0; pair < p.pairs; ++pair, row += 2 * p.columns) {
      const Real* const next = row + p.columns;
      Real first = 0, second = 0;
      _Pragma("omp simd reduction(+:first, second)") for (int i = 0; i < count; ++i) {
        first += of_phases[i] * row[i];
        second += of_phases[i] * next[i];
      }
      sums[2 * pair] += first;
      sums[2 * pair + 1] += second;
    }
  }
}

template <class T>
LED_INLINE void backward_rows(const T* grad, const T* features, T* grad_x, const Projection<RealOf<T>>& p,
                              int64_t begin, int64_t end) {
  const int64_t size = p.dimension + 2 * p.directions;
  std::vector<RealOf<T>> sums(2 * p.pairs);
  for (int64_t i = begin; i < end; ++i) {
    backward_row(grad + i * size, features + i * size, p, sums.data());
    for (int64_t d = 0; d < p.dimension; ++d) store(grad_x + i * p.dimension + d, sums[d]);
  }
}

// One plain function a dtype, since target_clones does not apply to templates.
#define LED_KERNELS(T)                                                                                           \
  LED_MULTIVERSION void read(Projection<RealOf<T>>& p, const T* projection) { p.read(projection); }              \
  LED_MULTIVERSION void forward(const T* x, T* features, const Projection<RealOf<T>>& p, int64_t b, int64_t e) { \
    forward_rows(x, features, p, b, e);                                                                          \
  }                                                                                                              \
  LED_MULTIVERSION void backward(const T* grad, const T* features, T* grad_x, const Projection<RealOf<T>>& p,    \
                                 int64_t b, int64_t e) {                                                         \
    backward_rows(grad, features, grad_x, p, b, e);                                                              \
  }
LED_KERNELS(double)
LED_KERNELS(float)
LED_KERNELS(Half)
LED_KERNELS(BFloat16)
#undef LED_KERNELS

// Calls f(p, begin, end, null pointer of the dtype) for shares of the rows.
template <class F> void for_rows(const char* op, const Tensor& projection, const Sizes& s, const F& f) {
  dispatch(op, projection.scalar_type(), [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    Projection<RealOf<T>> p(s);
    read(p, static_cast<const T*>(projection.const_data_ptr()));
    const int64_t grain = std::max<int64_t>(1, (int64_t(1) << 15) / (1 + s.directions * (4 + s.dimension)));
    torch::stable::parallel_for(0, s.rows, grain, [&](int64_t begin, int64_t end) { f(p, begin, end, type); });
  });
}

Tensor forward_cpu(const Tensor& x, const Tensor& projection) {
  return forward_op(x, projection, [](const Tensor& x, const Tensor& projection, Tensor& features, const Sizes& s) {
    const void* const from = x.const_data_ptr();
    void* const to = features.mutable_data_ptr();
    for_rows("fourier_features", projection, s, [=](const auto& p, int64_t begin, int64_t end, auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      forward(static_cast<const T*>(from), static_cast<T*>(to), p, begin, end);
    });
  });
}

Tensor backward_cpu(const Tensor& grad, const Tensor& features, const Tensor& projection) {
  return backward_op(
      grad, features, projection,
      [](const Tensor& grad, const Tensor& features, const Tensor& projection, Tensor& grad_x, const Sizes& s) {
        const void *const from = grad.const_data_ptr(), *const kept = features.const_data_ptr();
        void* const to = grad_x.mutable_data_ptr();
        for_rows(
            "fourier_features_backward", projection, s, [=](const auto& p, int64_t begin, int64_t end, auto* type) {
              using T = std::remove_pointer_t<decltype(type)>;
              backward(static_cast<const T*>(from), static_cast<const T*>(kept), static_cast<T*>(to), p, begin, end);
            });
      });
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(led_fast, m) {
  m.def("fourier_features(Tensor x, Tensor projection) -> Tensor");
  m.def("fourier_features_backward(Tensor grad, Tensor features, Tensor projection) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(led_fast, CPU, m) {
  m.impl("fourier_features", TORCH_BOX(&forward_cpu));
  m.impl("fourier_features_backward", TORCH_BOX(&backward_cpu));
}

}  // namespace led::fourier_features
