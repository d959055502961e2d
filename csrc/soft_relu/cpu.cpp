// soft-ReLU on the CPU: one pass that reads x, writes y and multiplies up the derivatives, whose logarithm is
// taken once per SIMD lane and chunk. Chunks are fixed and summed in order: the result does not depend on threads.
#include "common/simd.h"
#include "common/tensor.h"
#include "soft_relu/op.h"

#define LED_FUNCTION LED_INLINE
namespace led::soft_relu {
using simd::abs, simd::exp_nonpositive, simd::log1p_unit;  // what math.h builds on
}
#include "soft_relu/math.h"

#include <algorithm>
#include <limits>

namespace led::soft_relu {
namespace {
using namespace led::simd;

constexpr int64_t kChunk = 16384;  // elements: long enough to hide a call, short enough to share a sample among threads

template <class T> using RealOf = typename Storage<T>::Real;

template <class T> LED_INLINE T infinity() {
  if constexpr (std::is_same_v<T, Half>) return T{0x7c00};
  else if constexpr (std::is_same_v<T, BFloat16>) return T{0x7f80};
  else return std::numeric_limits<T>::infinity();
}

// A vector's worth of elements of which only the first n exist. L'(inf) = 1, so the others add nothing to a log.
template <class T> struct Tail {
  T elements[Lanes<RealOf<T>>::count];
  LED_INLINE Tail(const T* from, int64_t n) {
    for (T& e : elements) e = infinity<T>();
    std::memcpy(elements, from, n * sizeof(T));
  }
};

// y = L(x) for one vector; returns L'(x).
template <class T, class P> LED_INLINE auto step(const T* x, T* y, const P& p) {
  const Terms<Vec<RealOf<T>>, RealOf<T>> t(load(x), p);
  store(y, t.value());
  return t.first();
}

template <class Real> LED_INLINE double sum_lanes(Vec<Real> v) {
  double sum = 0;
  for (int l = 0; l < Lanes<Real>::count; ++l) sum += v[l];
  return sum;
}

// Σ log L' over n elements.
template <class T, class P> LED_INLINE double forward_row(const T* x, T* y, int64_t n, const P& p) {
  using Real = RealOf<T>;
  constexpr int lanes = Lanes<Real>::count;
  LogProduct<Real> total;
  int64_t i = 0;
  while (i + lanes <= n) {
    const int64_t stop = std::min<int64_t>(n - lanes, i + int64_t(p.safe_factors - 1) * lanes);
    Vec<Real> product = step(x + i, y + i, p);
    for (i += lanes; i <= stop; i += lanes) product *= step(x + i, y + i, p);
    total.absorb(product);
  }
  if (i < n) {
    Tail<T> tail(x + i, n - i);
    total.absorb(step(tail.elements, tail.elements, p));
    std::memcpy(y + i, tail.elements, (n - i) * sizeof(T));
  }
  return sum_lanes<Real>(total.log());
}

// `lanes` rows of n < lanes elements at once: their elements fill n vectors, then each lane multiplies up one row.
template <class T, class P> LED_INLINE void forward_short_rows(const T* x, T* y, int64_t n, double* sums, const P& p) {
  using Real = RealOf<T>;
  constexpr int lanes = Lanes<Real>::count;
  Real derivative[lanes * lanes];
  for (int64_t i = 0; i < n * lanes; i += lanes) store(derivative + i, step(x + i, y + i, p));
  LogProduct<Real> total;
  for (int64_t j = 0; j < n;) {
    Vec<Real> product = splat(Real(1));
    for (const int64_t stop = std::min<int64_t>(n, j + p.safe_factors); j < stop; ++j)
      for (int l = 0; l < lanes; ++l) product[l] *= derivative[l * n + j];
    total.absorb(product);
  }
  const Vec<Real> logs = total.log();
  for (int l = 0; l < lanes; ++l) sums[l] = logs[l];
}

template <class T, class P> LED_INLINE void forward_rows(const T* x, T* y, int64_t rows, int64_t n, double* sums, const P& p) {
  constexpr int lanes = Lanes<RealOf<T>>::count;
  int64_t row = 0;
  if (n < lanes) {
    for (; row + lanes <= rows; row += lanes) forward_short_rows(x + row * n, y + row * n, n, sums + row, p);
  }
  for (; row < rows; ++row) sums[row] = forward_row(x + row * n, y + row * n, n, p);
}

// gx = gy L' + gl L''/L' for one vector. A null gy stands for zeros.
template <class T, class P> LED_INLINE void backward_step(const T* x, const T* gy, RealOf<T> gl, T* gx, const P& p) {
  const Terms<Vec<RealOf<T>>, RealOf<T>> t(load(x), p);
  const auto first = t.first(), from_log = t.second() / first * gl;
  store(gx, gy ? load(gy) * first + from_log : from_log);
}

template <class T, class P>
LED_INLINE void backward_row(const T* x, const T* gy, RealOf<T> gl, T* gx, int64_t n, const P& p) {
  constexpr int lanes = Lanes<RealOf<T>>::count;
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) backward_step(x + i, gy ? gy + i : nullptr, gl, gx + i, p);
  if (i < n) {
    Tail<T> tail(x + i, n - i), tail_gy(gy ? gy + i : x + i, n - i);
    backward_step(tail.elements, gy ? tail_gy.elements : nullptr, gl, tail.elements, p);
    std::memcpy(gx + i, tail.elements, (n - i) * sizeof(T));
  }
}

// One plain function a dtype, since target_clones does not apply to templates.
#define LED_KERNELS(T)                                                                                            \
  LED_MULTIVERSION void forward(const T* x, T* y, int64_t rows, int64_t n, double* sums,                          \
                                const Parameters<RealOf<T>>& p) {                                                 \
    forward_rows(x, y, rows, n, sums, p);                                                                         \
  }                                                                                                               \
  LED_MULTIVERSION void backward(const T* x, const T* gy, RealOf<T> gl, T* gx, int64_t n,                         \
                                 const Parameters<RealOf<T>>& p) {                                                \
    backward_row(x, gy, gl, gx, n, p);                                                                            \
  }
LED_KERNELS(double)
LED_KERNELS(float)
LED_KERNELS(Half)
LED_KERNELS(BFloat16)
#undef LED_KERNELS

// Calls f with a pointer of the kernels' type for the dtype.
template <class F> void dispatch(ScalarType dtype, F f) {
  switch (dtype) {
    case ScalarType::Double: return f(static_cast<double*>(nullptr));
    case ScalarType::Float: return f(static_cast<float*>(nullptr));
    case ScalarType::Half: return f(static_cast<Half*>(nullptr));
    case ScalarType::BFloat16: return f(static_cast<BFloat16*>(nullptr));
    default: STD_TORCH_CHECK(false, "soft_relu: unsupported dtype");
  }
}

template <class T> void forward_parallel(const T* x, T* y, const Shape& s, RealOf<T>* logs, const Parameters<RealOf<T>>& p) {
  const int64_t chunks = (s.row_size + kChunk - 1) / kChunk;
  std::vector<double> sums(s.rows * chunks);
  if (chunks == 1) {
    torch::stable::parallel_for(0, s.rows, std::max<int64_t>(1, kChunk / s.row_size), [&](int64_t begin, int64_t end) {
      const int64_t offset = begin * s.row_size;
      forward(x + offset, y + offset, end - begin, s.row_size, sums.data() + begin, p);
    });
  } else {
    torch::stable::parallel_for(0, s.rows * chunks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; ++c) {
        const int64_t start = c % chunks * kChunk, offset = c / chunks * s.row_size + start;
        forward(x + offset, y + offset, 1, std::min(kChunk, s.row_size - start), sums.data() + c, p);
      }
    });
  }
  for (int64_t row = 0; row < s.rows; ++row) {
    double sum = 0;
    for (int64_t c = 0; c < chunks; ++c) sum += sums[row * chunks + c];
    logs[row] = RealOf<T>(sum);
  }
}

std::tuple<Tensor, Tensor> forward_cpu(const Tensor& x, double alpha, double beta, double u0, double t0) {
  return forward_op(x, [&](const Tensor& dense, Tensor& y, Tensor& logs, const Shape& shape) {
    dispatch(x.scalar_type(), [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      forward_parallel(static_cast<const T*>(dense.const_data_ptr()), static_cast<T*>(y.mutable_data_ptr()), shape,
                       static_cast<RealOf<T>*>(logs.mutable_data_ptr()), Parameters<RealOf<T>>(alpha, beta, u0, t0));
    });
  });
}

Tensor backward_cpu(const Tensor& x, std::optional<Tensor> grad_y, std::optional<Tensor> grad_log, double alpha,
                    double beta, double u0) {
  return backward_op(x, grad_y, grad_log, [&](const Tensor& dense, const void* gy, const void* gl, Tensor& gx, const Shape& s) {
    dispatch(x.scalar_type(), [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      const Parameters<RealOf<T>> p(alpha, beta, u0, 0);
      const auto* px = static_cast<const T*>(dense.const_data_ptr());
      const auto* pgy = static_cast<const T*>(gy);
      const auto* pgl = static_cast<const RealOf<T>*>(gl);
      auto* pgx = static_cast<T*>(gx.mutable_data_ptr());
      const int64_t chunks = (s.row_size + kChunk - 1) / kChunk;
      torch::stable::parallel_for(0, s.rows * chunks, std::max<int64_t>(1, kChunk / s.row_size), [&](int64_t begin, int64_t end) {
        for (int64_t c = begin; c < end; ++c) {
          const int64_t row = c / chunks, start = c % chunks * kChunk, offset = row * s.row_size + start;
          backward(px + offset, pgy ? pgy + offset : nullptr, pgl ? pgl[row] : 0, pgx + offset,
                   std::min(kChunk, s.row_size - start), p);
        }
      });
    });
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(led_fast, CPU, m) {
  m.impl("soft_relu", TORCH_BOX(&forward_cpu));
  m.impl("soft_relu_backward", TORCH_BOX(&backward_cpu));
}

}  // namespace led::soft_relu
