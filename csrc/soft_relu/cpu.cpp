// soft-ReLU on the CPU: one pass that reads x, writes y and multiplies up the derivatives, whose logarithm is taken
// once per row and chunk. Chunks are fixed and summed in order: the result does not depend on the threads.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "common/elementary.h"
#define LED_FUNCTION LED_INLINE
#include "soft_relu/inverse.h"
#include "soft_relu/op.h"

namespace led::soft_relu {
namespace {

constexpr int64_t kChunk = 16384;  // elements: long enough to hide a call, short enough to share a sample among threads
constexpr int kBlock = 64;         // elements a loop: four registers of the widest machine
constexpr int kRegister = 16;      // loops run over multiples of it, so that no scalar remainder is left

template <class T> LED_INLINE T infinity() {
  if constexpr (std::is_same_v<T, Half>) return T{0x7c00};
  else if constexpr (std::is_same_v<T, BFloat16>) return T{0x7f80};
  else return std::numeric_limits<T>::infinity();
}

int64_t chunks_of(const Shape& s) { return (s.row_size + kChunk - 1) / kChunk; }
LED_INLINE int round_up(int64_t n) { return int((n + kRegister - 1) / kRegister * kRegister); }

// A copy of n < kBlock elements, padded to whole registers by infinity: L'(inf) = 1 adds nothing to a logarithm.
template <class T> struct Tail {
  T elements[kBlock];
  LED_INLINE Tail(const T* from, int64_t n) {
    for (T& e : elements) e = infinity<T>();
    std::memcpy(elements, from, n * sizeof(T));
  }
};

// log of a product of slope numerators. The factors lie in lanes and are absorbed a few at a time into mantissas and
// exponents, so that nothing underflows however many there are. A NaN gets lost, but not in the sum of log1p.
template <class Real, int Lanes> struct LogProduct {
  Real mantissa[Lanes];
  typename Format<Real>::Int exponent[Lanes] = {};

  LED_INLINE LogProduct() {
    for (Real& m : mantissa) m = 1;
  }
  // Each product must be a normal number.
  LED_INLINE void absorb(const Real (&product)[Lanes]) {
    LED_SIMD
    for (int l = 0; l < Lanes; ++l) {
      typename Format<Real>::Int e;
      mantissa[l] = split_exponent(mantissa[l] * product[l], &e);
      exponent[l] += e;
    }
  }
  // log of the product over all lanes.
  LED_INLINE double log() const {
    double product = 1;
    int64_t exponents = 0;
    _Pragma("omp simd reduction(*:product) reduction(+:exponents)") for (int l = 0; l < Lanes; ++l) {
      product *= mantissa[l];
      exponents += exponent[l];
    }
    return log_normal(product) + exponents * 0.69314718055994530942;
  }
};

// y = L(x) for n elements, n a multiple of kRegister.
template <class T, class P>
LED_INLINE void forward_loop(const T* x, T* y, int n, RealOf<T>* numerator, RealOf<T>* log1p, const P& parameters) {
  const P p = parameters;
  LED_SIMD
  for (int l = 0; l < n; ++l) {
    const auto terms = forward_terms(load(x[l]), p);
    store(y + l, terms.value);
    numerator[l] = terms.numerator;
    log1p[l] = terms.log1p;
  }
}

// y = L(x) for one row or a chunk of it; returns Σ log L'.
template <class T, class P> LED_INLINE double forward_row(const T* x, T* y, int64_t n, const P& parameters) {
  using Real = RealOf<T>;
  const P p = parameters;
  LogProduct<Real, kBlock> numerators;
  double log1p_total = 0;
  Real product[kBlock], sum[kBlock];
  const auto absorb = [&]() __attribute__((always_inline)) {
    numerators.absorb(product);
    _Pragma("omp simd reduction(+:log1p_total)") for (int l = 0; l < kBlock; ++l) log1p_total += sum[l];
  };
  int64_t i = 0;
  while (i + kBlock <= n) {
    for (int l = 0; l < kBlock; ++l) product[l] = 1, sum[l] = 0;
    const int64_t stop = std::min<int64_t>(n - kBlock, i + int64_t(p.safe_factors - 1) * kBlock);
    for (; i <= stop; i += kBlock) {
      LED_SIMD
      for (int l = 0; l < kBlock; ++l) {
        const auto terms = forward_terms(load(x[i + l]), p);
        store(y + i + l, terms.value);
        product[l] *= terms.numerator;
        sum[l] += terms.log1p;
      }
    }
    absorb();
  }
  if (i < n) {
    Tail<T> tail(x + i, n - i);
    for (int l = 0; l < kBlock; ++l) product[l] = 1, sum[l] = 0;
    forward_loop(tail.elements, tail.elements, round_up(n - i), product, sum, p);
    std::memcpy(y + i, tail.elements, (n - i) * sizeof(T));
    absorb();
  }
  return numerators.log() - log1p_total;
}

// kRegister rows of n < kBlock elements at once, so that their elements are whole registers.
template <class T, class P> LED_INLINE void forward_short_rows(const T* x, T* y, int64_t n, double* sums, const P& p) {
  using Real = RealOf<T>;
  Real numerators[kRegister * kBlock], log1ps[kRegister * kBlock];
  forward_loop(x, y, int(n) * kRegister, numerators, log1ps, p);
  double products[kRegister];
  for (int row = 0; row < kRegister; ++row) {
    double product = 1, log_slope = 0;
    int factors = 0;
    for (int64_t i = row * n; i < (row + 1) * n; ++i) {
      if (factors++ == p.safe_factors) log_slope += log_normal(product), product = 1, factors = 1;
      product *= numerators[i];
      log_slope -= log1ps[i];
    }
    products[row] = product;
    sums[row] = log_slope;
  }
  LED_SIMD
  for (int row = 0; row < kRegister; ++row) sums[row] += log_normal(products[row]);
}

template <class T, class P>
LED_INLINE void forward_rows(const T* x, T* y, int64_t rows, int64_t n, double* sums, const P& p) {
  int64_t row = 0;
  if (n < kBlock) {
    for (; row + kRegister <= rows; row += kRegister) forward_short_rows(x + row * n, y + row * n, n, sums + row, p);
  }
  for (; row < rows; ++row) sums[row] = forward_row(x + row * n, y + row * n, n, p);
}

// gx = gy L' + gl L''/L' for n elements, n a multiple of kRegister. A null gy stands for zeros; gl is one value for
// all elements (stride 0) or one each (stride 1).
template <int GlStride, class T, class P>
LED_INLINE void backward_loop(const T* x, const T* gy, const RealOf<T>* gl, T* gx, int64_t n, const P& parameters) {
  const P p = parameters;
  if (gy) {
    LED_SIMD
    for (int64_t l = 0; l < n; ++l) {
      const auto terms = backward_terms(load(x[l]), p);
      store(gx + l, load(gy[l]) * terms.slope + terms.log_slope * gl[l * GlStride]);
    }
  } else {
    LED_SIMD
    for (int64_t l = 0; l < n; ++l) store(gx + l, backward_terms(load(x[l]), p).log_slope * gl[l * GlStride]);
  }
}

template <class T, class P>
LED_INLINE void backward_row(const T* x, const T* gy, RealOf<T> gl, T* gx, int64_t n, const P& p) {
  const int64_t whole = n / kRegister * kRegister, rest = n - whole;
  backward_loop<0>(x, gy, &gl, gx, whole, p);
  if (rest) {
    Tail<T> tail(x + whole, rest), tail_gy(gy ? gy + whole : x, gy ? rest : 0);
    backward_loop<0>(tail.elements, gy ? tail_gy.elements : nullptr, &gl, tail.elements, kRegister, p);
    std::memcpy(gx + whole, tail.elements, rest * sizeof(T));
  }
}

// As backward_row, for many short rows; gl is null or has one value a row.
template <class T, class P>
LED_INLINE void backward_rows(const T* x, const T* gy, const RealOf<T>* gl, T* gx, int64_t rows, int64_t n,
                              const P& p) {
  int64_t row = 0;
  if (n < kBlock) {
    RealOf<T> spread[kRegister * kBlock] = {};
    for (; row + kRegister <= rows; row += kRegister) {
      if (gl) {
        for (int64_t i = 0; i < kRegister; ++i) std::fill_n(spread + i * n, n, gl[row + i]);
      }
      const int64_t offset = row * n;
      backward_loop<1>(x + offset, gy ? gy + offset : nullptr, spread, gx + offset, kRegister * n, p);
    }
  }
  for (; row < rows; ++row)
    backward_row(x + row * n, gy ? gy + row * n : nullptr, gl ? gl[row] : 0, gx + row * n, n, p);
}

// One plain function a dtype, since target_clones does not apply to templates.
#define LED_KERNELS(T, P)                                                                                      \
  LED_MULTIVERSION void forward(const T* x, T* y, int64_t rows, int64_t n, double* sums, const P& p) {         \
    forward_rows(x, y, rows, n, sums, p);                                                                      \
  }                                                                                                            \
  LED_MULTIVERSION void backward(const T* x, const T* gy, const RealOf<T>* gl, T* gx, int64_t rows, int64_t n, \
                                 const P& p) {                                                                 \
    backward_rows(x, gy, gl, gx, rows, n, p);                                                                  \
  }
LED_KERNELS(double, Parameters<double>)
LED_KERNELS(float, Parameters<float>)
LED_KERNELS(Half, Parameters<float>)
LED_KERNELS(BFloat16, Parameters<float>)
LED_KERNELS(double, InverseParameters<double>)
LED_KERNELS(float, InverseParameters<float>)
LED_KERNELS(Half, InverseParameters<float>)
LED_KERNELS(BFloat16, InverseParameters<float>)
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

// Calls f(row, start, rows, n) for pieces that cover all samples: n elements from `start` on, of `rows` samples from
// `row` on. A piece is a chunk of one sample or several whole samples.
template <class F> void for_each_piece(const Shape& s, const F& f) {
  const int64_t chunks = chunks_of(s);
  torch::stable::parallel_for(0, s.rows * chunks, std::max<int64_t>(1, kChunk / s.row_size),
                              [&](int64_t begin, int64_t end) {
                                if (chunks == 1) return f(begin, 0, end - begin, s.row_size);
                                for (int64_t c = begin; c < end; ++c) {
                                  const int64_t start = c % chunks * kChunk;
                                  f(c / chunks, start, 1, std::min(kChunk, s.row_size - start));
                                }
                              });
}

template <template <class> class P>
std::tuple<Tensor, Tensor> forward_cpu(const Tensor& x, double alpha, double beta, double u0, double t0) {
  return forward_op(x, [&](const Tensor& dense, Tensor& y, Tensor& log_abs_det, const Shape& s) {
    dispatch(x.scalar_type(), [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      const P<RealOf<T>> p(alpha, beta, u0, t0);
      const auto* from = static_cast<const T*>(dense.const_data_ptr());
      auto* to = static_cast<T*>(y.mutable_data_ptr());
      auto* logs = static_cast<RealOf<T>*>(log_abs_det.mutable_data_ptr());
      const int64_t chunks = chunks_of(s);
      std::vector<double> sums(s.rows * chunks);
      for_each_piece(s, [&](int64_t row, int64_t start, int64_t rows, int64_t n) {
        const int64_t offset = row * s.row_size + start;
        forward(from + offset, to + offset, rows, n, sums.data() + row * chunks + start / kChunk, p);
      });
      for (int64_t row = 0; row < s.rows; ++row)
        logs[row] = RealOf<T>(p.direction * std::accumulate(&sums[row * chunks], &sums[row * chunks] + chunks, 0.0));
    });
  });
}

template <template <class> class P>
Tensor backward_cpu(const Tensor& x, std::optional<Tensor> grad_y, std::optional<Tensor> grad_log, double alpha,
                    double beta, double u0, double t0) {
  return backward_op(x, grad_y, grad_log,
                     [&](const Tensor& dense, const void* gy, const void* gl, Tensor& gx, const Shape& s) {
                       dispatch(x.scalar_type(), [&](auto* type) {
                         using T = std::remove_pointer_t<decltype(type)>;
                         const P<RealOf<T>> p(alpha, beta, u0, t0);
                         const auto* from = static_cast<const T*>(dense.const_data_ptr());
                         const auto* per_element = static_cast<const T*>(gy);
                         const auto* per_row = static_cast<const RealOf<T>*>(gl);
                         auto* to = static_cast<T*>(gx.mutable_data_ptr());
                         for_each_piece(s, [&](int64_t row, int64_t start, int64_t rows, int64_t n) {
                           const int64_t offset = row * s.row_size + start;
                           backward(from + offset, per_element ? per_element + offset : nullptr,
                                    per_row ? per_row + row : nullptr, to + offset, rows, n, p);
                         });
                       });
                     });
}

// Its t0 moves no gradient.
Tensor soft_relu_backward_cpu(const Tensor& x, std::optional<Tensor> grad_y, std::optional<Tensor> grad_log,
                              double alpha, double beta, double u0) {
  return backward_cpu<Parameters>(x, grad_y, grad_log, alpha, beta, u0, 0);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(led_fast, CPU, m) {
  m.impl("soft_relu", TORCH_BOX(&forward_cpu<Parameters>));
  m.impl("soft_relu_backward", TORCH_BOX(&soft_relu_backward_cpu));
  m.impl("soft_relu_inverse", TORCH_BOX(&forward_cpu<InverseParameters>));
  m.impl("soft_relu_inverse_backward", TORCH_BOX(&backward_cpu<InverseParameters>));
}

}  // namespace led::soft_relu
