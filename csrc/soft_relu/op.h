// The part of soft-ReLU's torch side that all devices share: safety checks, layouts, outputs, empty inputs.
#pragma once
#include "common/tensor.h"

#include <optional>
#include <tuple>

namespace led::soft_relu {

struct Shape {
  int64_t rows, row_size;  // samples, and elements of one sample
};

// log_abs_det's dtype: float32 or better.
inline ScalarType log_dtype(const Tensor& x) {
  return x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

inline Shape shape_of(const Tensor& x) {
  STD_TORCH_CHECK(x.dim() >= 1, "soft_relu: x must have a batch dimension");
  const int64_t rows = x.size(0);
  return {rows, rows ? x.numel() / rows : 0};
}

// launch(x, y, log_abs_det, shape) with x and y dense and of the same strides; never called on an empty tensor.
template <class Launch> std::tuple<Tensor, Tensor> forward_op(const Tensor& x, Launch launch) {
  const Shape shape = shape_of(x);
  const Tensor dense = in_format(x, sample_dense_format(x));
  Tensor y = empty_with_strides_of(dense), log_abs_det = empty_per_sample(x, log_dtype(x));
  if (x.numel() > 0) launch(dense, y, log_abs_det, shape);
  else torch::stable::zero_(log_abs_det);
  return {y, log_abs_det};
}

// launch(x, grad_y, grad_log, grad_x, shape) with dense data of the same strides. A missing gradient is a null pointer.
template <class Launch>
Tensor backward_op(const Tensor& x, const std::optional<Tensor>& grad_y, const std::optional<Tensor>& grad_log,
                   Launch launch) {
  const Shape shape = shape_of(x);
  const MemoryFormat format = sample_dense_format(x);
  const Tensor dense = in_format(x, format);
  Tensor grad_x = empty_with_strides_of(dense);
  std::optional<Tensor> gy, gl;
  if (grad_y) {
    STD_TORCH_CHECK(
        grad_y->scalar_type() == x.scalar_type() && same_sizes(*grad_y, x) && grad_y->device() == x.device(),
        "soft_relu_backward: grad_y must have x's shape, dtype and device");
    gy = in_format(*grad_y, format);
  }
  if (grad_log) {
    STD_TORCH_CHECK(
        grad_log->scalar_type() == log_dtype(x) && grad_log->numel() == shape.rows && grad_log->device() == x.device(),
        "soft_relu_backward: grad_log_abs_det must have one value a sample");
    gl = in_format(*grad_log, MemoryFormat::Contiguous);
  }
  if (x.numel() > 0)
    launch(dense, gy ? gy->const_data_ptr() : nullptr, gl ? gl->const_data_ptr() : nullptr, grad_x, shape);
  return grad_x;
}

}  // namespace led::soft_relu
