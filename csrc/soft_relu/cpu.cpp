// soft-ReLU and its inverse on the CPU: one pass that reads x, writes y and multiplies up the derivatives, whose
// logarithm is taken once per row and chunk.
#include "soft_relu/cpu.h"

namespace led::soft_relu {
namespace {

template <class T, class P>
LED_INLINE void forward_rows(const T* x, T* y, int64_t rows, int64_t n, double* sums, const P& p) {
  int64_t row = 0;
  if (n < kBlock) {
    for (; row + kRegister <= rows; row += kRegister)
      forward_short_rows(x + row * n, y + row * n, n, sums + row, Constant<P>{p}, p.safe_factors);
  }
  for (; row < rows; ++row) {
    LogSum<RealOf<T>> sum;
    forward_segment(x + row * n, y + row * n, n, Constant<P>{p}, p.safe_factors, sum);
    sums[row] = sum.total();
  }
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

template <template <class> class P>
std::tuple<Tensor, Tensor> forward_cpu(const Tensor& x, double alpha, double beta, double u0, double t0) {
  return forward_op(x, [&](const Tensor& dense, Tensor& y, Tensor& log_abs_det, const Shape& s) {
    dispatch("soft_relu", x.scalar_type(), [&](auto* type) {
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
                       dispatch("soft_relu", x.scalar_type(), [&](auto* type) {
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
