// The part of the perpendicular norm's torch side that all devices share: safety checks, layouts and outputs.
#pragma once
#include <tuple>
#include <vector>

#include "common/tensor.h"
#include "perpendicular/geometry.h"

namespace led::perpendicular {

inline Geometry geometry_of(const Tensor& x, const Tensor& weight, const Tensor& t, const std::vector<int64_t>& stride,
                            const std::vector<int64_t>& padding, const std::vector<int64_t>& dilation, int64_t groups) {
  STD_TORCH_CHECK(x.dim() == 4 && weight.dim() == 4 && t.dim() == 4, "perpendicular_norm: x, weight and t must be 4-d");
  STD_TORCH_CHECK(stride.size() == 2 && padding.size() == 2 && dilation.size() == 2,
                  "perpendicular_norm: stride, padding and dilation must hold 2 numbers");
  const Geometry g{x.size(0),  groups,     x.size(1),      x.size(2),      x.size(3), t.size(1),
                   t.size(2),  t.size(3),  weight.size(2), weight.size(3), stride[0], stride[1],
                   padding[0], padding[1], dilation[0],    dilation[1]};
  const auto covers = [](int64_t in, int64_t out, int64_t kernel, int64_t s, int64_t p, int64_t d) {
    return kernel > 0 && s > 0 && p >= 0 && d > 0 && out > 0 && (in + 2 * p - d * (kernel - 1) - 1) / s + 1 == out;
  };
  STD_TORCH_CHECK(covers(g.height, g.out_height, g.kernel_h, g.stride_h, g.padding_h, g.dilation_h) &&
                      covers(g.width, g.out_width, g.kernel_w, g.stride_w, g.padding_w, g.dilation_w),
                  "perpendicular_norm: t has not the size of the convolution");
  STD_TORCH_CHECK(groups > 0 && g.in_channels == weight.size(1) * groups && g.out_channels == weight.size(0) &&
                      g.out_channels % groups == 0 && t.size(0) == g.batch,
                  "perpendicular_norm: channels, groups or batch sizes do not agree");
  STD_TORCH_CHECK(x.scalar_type() == weight.scalar_type() && x.scalar_type() == t.scalar_type(),
                  "perpendicular_norm: dtypes differ");
  return g;
}

inline Tensor dense(const Tensor& x) { return in_format(x, MemoryFormat::Contiguous); }

// launch(x, weight, t, norm, coefficient, u or null, geometry) with contiguous data; never called on empty x.
template <class Launch>
std::tuple<Tensor, Tensor, Tensor> norm_op(const Tensor& x, const Tensor& weight, const Tensor& t, const Geometry& g,
                                           bool keep_u, Launch launch) {
  const Tensor xc = dense(x), wc = dense(weight), tc = dense(t);
  Tensor norm = empty_per_sample(x, x.scalar_type()), coefficient = empty_per_sample(x, x.scalar_type());
  const int64_t none = 0, one = 1;
  Tensor u = keep_u ? empty_with_strides_of(xc) : empty_strided(x, &none, &one, 1, x.scalar_type());
  if (x.numel() > 0) {
    launch(xc, wc, tc, norm, coefficient, keep_u ? u.mutable_data_ptr() : nullptr);
  } else {  // of images without pixels or channels
    torch::stable::zero_(norm);
    torch::stable::zero_(coefficient);
  }
  return {norm, coefficient, u};
}

// launch(x, weight, t, u, grad_x, grad_weight or null, grad_t or null, geometry) with contiguous data; never called on
// an empty batch.
template <class Launch>
std::tuple<Tensor, Tensor, Tensor> backward_op(const Tensor& x, const Tensor& weight, const Tensor& t, const Tensor& u,
                                               const Geometry& g, bool need_weight, bool need_t, Launch launch) {
  STD_TORCH_CHECK(u.numel() == x.numel() && u.scalar_type() == x.scalar_type(),
                  "perpendicular_norm_backward: u must have x's shape and dtype");
  const Tensor xc = dense(x), wc = dense(weight), tc = dense(t), uc = dense(u);
  const int64_t none = 0, one = 1;
  const auto output = [&](const Tensor& like, bool needed) {
    return needed ? empty_with_strides_of(like) : empty_strided(x, &none, &one, 1, x.scalar_type());
  };
  Tensor grad_x = output(xc, true), grad_weight = output(wc, need_weight), grad_t = output(tc, need_t);
  if (g.batch > 0)
    launch(xc, wc, tc, uc, grad_x, need_weight ? grad_weight.mutable_data_ptr() : nullptr,
           need_t ? grad_t.mutable_data_ptr() : nullptr);
  else if (need_weight) torch::stable::zero_(grad_weight);
  return {grad_x, grad_weight, grad_t};
}

// launch(x, u, norm, coefficient, elements of a sample) with contiguous data; never called on an empty batch.
template <class Launch> std::tuple<Tensor, Tensor> norm_to_op(const Tensor& x, const Tensor& u, Launch launch) {
  STD_TORCH_CHECK(x.dim() >= 1 && u.dim() >= 1 && x.size(0) == u.size(0) && x.numel() == u.numel() &&
                      x.scalar_type() == u.scalar_type(),
                  "perpendicular_norm_to: x and u must have one shape and dtype");
  const Tensor xc = dense(x), uc = dense(u);
  Tensor norm = empty_per_sample(x, x.scalar_type()), coefficient = empty_per_sample(x, x.scalar_type());
  if (x.size(0) > 0) launch(xc, uc, norm, coefficient, x.numel() / x.size(0));
  return {norm, coefficient};
}

}  // namespace led::perpendicular
