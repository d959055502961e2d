// The part of the torch side that all devices share, for parameters per feature.
#pragma once
#include "soft_relu/op.h"

#include <array>

namespace led::soft_relu {

// Samples of `features` features, each `run` elements side by side: those after its dimension, or one in
// channels-last.
struct FeatureShape : Shape {
  int64_t features, run;
};

// ratio, sharpness, u0 and t0: dense vectors of float64 or float32, whatever x is. 1 - ratio needs more digits than
// float32 has where the ratio was computed from other parameters.
struct Numbers {
  std::array<Tensor, 4> tensors;
  bool wide() const { return tensors[0].scalar_type() == ScalarType::Double; }
};

inline FeatureShape feature_shape_of(const Tensor& x, MemoryFormat format) {
  STD_TORCH_CHECK(x.dim() >= 2, "soft_relu_per_feature: x must have dimensions of batch and features");
  const Shape s = shape_of(x);
  const int64_t features = x.size(1);
  const bool together = format == MemoryFormat::Contiguous && features > 0;
  return {s.rows, s.row_size, features, together ? s.row_size / features : 1};
}

inline Numbers numbers_of(const Tensor& x, const std::array<Tensor, 4>& parameters) {
  for (const Tensor& p : parameters)
    STD_TORCH_CHECK(p.dim() == 1 && p.size(0) == x.size(1) && p.device() == x.device() &&
                        p.scalar_type() == parameters[0].scalar_type() &&
                        (p.scalar_type() == ScalarType::Float || p.scalar_type() == ScalarType::Double),
                    "soft_relu_per_feature: parameters must be vectors of one value a feature, all float32 or float64");
  const auto dense = [](const Tensor& p) { return in_format(p, MemoryFormat::Contiguous); };
  return {{dense(parameters[0]), dense(parameters[1]), dense(parameters[2]), dense(parameters[3])}};
}

// launch(x, numbers, y, log_abs_det, shape); never called on an empty tensor.
template <class Launch>
std::tuple<Tensor, Tensor> per_feature_op(const Tensor& x, const std::array<Tensor, 4>& parameters, Launch launch) {
  const MemoryFormat format = sample_dense_format(x);
  const FeatureShape shape = feature_shape_of(x, format);
  const Numbers numbers = numbers_of(x, parameters);
  return forward_op(x, [&](const Tensor& dense, Tensor& y, Tensor& log_abs_det, const Shape&) {
    launch(dense, numbers, y, log_abs_det, shape);
  });
}

// launch(x, grad_y, grad_log, numbers, grad_x, grad_parameters, shape), where no gradient is missing. Returns grad_x
// and the gradients to the four parameters as rows, of their dtype.
template <class Launch>
std::tuple<Tensor, Tensor> per_feature_backward_op(const Tensor& x, std::optional<Tensor> grad_y,
                                                   std::optional<Tensor> grad_log,
                                                   const std::array<Tensor, 4>& parameters, Launch launch) {
  const MemoryFormat format = sample_dense_format(x);
  const FeatureShape shape = feature_shape_of(x, format);
  const Numbers numbers = numbers_of(x, parameters);
  const int64_t sizes[2] = {4, shape.features}, strides[2] = {shape.features, 1};
  Tensor grads = empty_strided(x, sizes, strides, 2, parameters[0].scalar_type());
  if (!grad_y) {
    grad_y = empty_with_strides_of(in_format(x, format));
    torch::stable::zero_(*grad_y);
  }
  if (!grad_log) {
    grad_log = empty_per_sample(x, log_dtype(x));
    torch::stable::zero_(*grad_log);
  }
  if (x.numel() == 0) torch::stable::zero_(grads);
  const Tensor grad_x = backward_op(x, grad_y, grad_log,
                                    [&](const Tensor& dense, const void* gy, const void* gl, Tensor& gx, const Shape&) {
                                      launch(dense, gy, gl, numbers, gx, grads, shape);
                                    });
  return {grad_x, grads};
}

}  // namespace led::soft_relu
