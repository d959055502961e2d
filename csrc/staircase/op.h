// The part of the staircase's torch side that all devices share: safety checks, layouts, outputs, empty inputs.
#pragma once
#include <optional>
#include <tuple>

#include "common/tensor.h"
#include "staircase/layout.h"

namespace led::staircase {

// The dtype of log_abs_det and of the parameters: float32 or better.
inline ScalarType real_dtype(const Tensor& x) {
  return x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

struct Parameters {
  Tensor centers, heights, steepness, slope;  // contiguous
};

inline Parameters check_parameters(const Tensor& x, const Tensor& centers, const Tensor& heights,
                                   const Tensor& steepness, const Tensor& slope) {
  STD_TORCH_CHECK(x.dim() >= 2, "staircase: x must have shape (B, F, ...)");
  STD_TORCH_CHECK(centers.dim() == 2 && centers.size(0) == x.size(1) && same_sizes(heights, centers) &&
                      same_sizes(steepness, centers) && slope.dim() == 1 && slope.size(0) == x.size(1),
                  "staircase: centers, heights and steepness must have shape (F, K), slope (F,)");
  for (const Tensor* p : {&centers, &heights, &steepness, &slope})
    STD_TORCH_CHECK(p->scalar_type() == real_dtype(x) && p->device() == x.device(),
                    "staircase: parameters must be float64 for float64 inputs, else float32, on the device of x");
  const auto dense = [](const Tensor& t) { return in_format(t, MemoryFormat::Contiguous); };
  return {dense(centers), dense(heights), dense(steepness), dense(slope)};
}

// Of a sample-dense x.
inline Layout layout_of(const Tensor& x, const Parameters& p) {
  const int64_t samples = x.size(0), features = x.size(1);
  int64_t inner = 1;
  for (int64_t d = 2; d < x.dim(); ++d) inner *= x.size(d);
  return {samples, features, inner, p.centers.size(1), !x.is_contiguous()};
}

// A cotangent in x's layout, or nothing.
inline std::optional<Tensor> check_element_gradient(const std::optional<Tensor>& g, const Tensor& x,
                                                    MemoryFormat format) {
  if (!g) return g;
  STD_TORCH_CHECK(g->scalar_type() == x.scalar_type() && same_sizes(*g, x) && g->device() == x.device(),
                  "staircase_backward: the gradient of an element's value must have its shape, dtype and device");
  return in_format(*g, format);
}
inline std::optional<Tensor> check_log_gradient(const std::optional<Tensor>& g, const Tensor& x) {
  if (!g) return g;
  STD_TORCH_CHECK(
      g->scalar_type() == real_dtype(x) && g->dim() == 1 && g->size(0) == x.size(0) && g->device() == x.device(),
      "staircase_backward: grad_log_abs_det must have one value a sample");
  return in_format(*g, MemoryFormat::Contiguous);
}

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

// launch(x, y, log_abs_det, parameters, layout) with x and y dense and of the same strides; never called on an empty
// tensor.
template <class Launch>
std::tuple<Tensor, Tensor> map_op(const Tensor& x, const Tensor& centers, const Tensor& heights,
                                  const Tensor& steepness, const Tensor& slope, Launch launch) {
  const Parameters parameters = check_parameters(x, centers, heights, steepness, slope);
  const Tensor dense = in_format(x, sample_dense_format(x));
  Tensor y = empty_with_strides_of(dense), log_abs_det = empty_per_sample(x, real_dtype(x));
  if (x.numel() > 0) launch(dense, y, log_abs_det, parameters, layout_of(dense, parameters));
  else torch::stable::zero_(log_abs_det);
  return {y, log_abs_det};
}

// launch(y, x, log_abs_det, kept, parameters, layout): where they are to be kept, the results x once more, in the dtype
// they were computed in, are a third output, else a null pointer.
template <class Launch>
std::tuple<Tensor, Tensor, Tensor> inverse_op(const Tensor& y, const Tensor& centers, const Tensor& heights,
                                              const Tensor& steepness, const Tensor& slope, bool keep, Launch launch) {
  const int64_t none = 0, stride = 1;
  Tensor kept = empty_strided(y, &none, &stride, 1, real_dtype(y));
  const auto [x, log_abs_det] =
      map_op(y, centers, heights, steepness, slope,
             [&](const Tensor& dense, Tensor& x, Tensor& log_abs_det, const Parameters& p, const Layout& l) {
               if (keep) kept = empty_strided(x, x.sizes().data(), x.strides().data(), x.dim(), real_dtype(y));
               launch(dense, x, log_abs_det, keep ? kept.mutable_data_ptr() : nullptr, p, l);
             });
  if (keep && y.numel() == 0) kept = empty_strided(x, x.sizes().data(), x.strides().data(), x.dim(), real_dtype(y));
  return {x, log_abs_det, kept};
}

// launch(x, grad_y, grad_log, gradients, parameters, layout): gradients to x, centers, heights, steepness, slope.
template <class Launch>
Gradients backward_op(const Tensor& x, const Tensor& centers, const Tensor& heights, const Tensor& steepness,
                      const Tensor& slope, const std::optional<Tensor>& grad_y, const std::optional<Tensor>& grad_log,
                      Launch launch) {
  const Parameters p = check_parameters(x, centers, heights, steepness, slope);
  const MemoryFormat format = sample_dense_format(x);
  const Tensor dense = in_format(x, format);
  const auto gy = check_element_gradient(grad_y, x, format), gl = check_log_gradient(grad_log, x);
  Gradients gradients{empty_with_strides_of(dense), empty_with_strides_of(p.centers), empty_with_strides_of(p.heights),
                      empty_with_strides_of(p.steepness), empty_with_strides_of(p.slope)};
  if (x.numel() > 0) {
    launch(dense, gy ? gy->const_data_ptr() : nullptr, gl ? gl->const_data_ptr() : nullptr, gradients, p,
           layout_of(dense, p));
  } else {
    std::apply([](auto&... g) { (torch::stable::zero_(g), ...); }, gradients);
  }
  return gradients;
}

}  // namespace led::staircase
