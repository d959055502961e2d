// The torch side of soft-ReLU's CUDA kernels.
#include "common/cuda_tensor.h"
#include "soft_relu/launch.h"
#include "soft_relu/per_feature_op.h"

namespace led::soft_relu {
namespace {

using torch::stable::accelerator::DeviceGuard;

// kLaunch: the launcher, of soft-ReLU or of its inverse.
template <auto kLaunch>
std::tuple<Tensor, Tensor> forward_cuda(const Tensor& x, double alpha, double beta, double u0, double t0) {
  const DeviceGuard guard(x.get_device_index());
  return forward_op(x, [&](const Tensor& dense, Tensor& y, Tensor& log_abs_det, const Shape& s) {
    const int64_t pieces = pieces_of(s.row_size), size = s.rows * pieces, stride = 1;
    std::optional<Tensor> workspace;
    if (pieces > 1) workspace = empty_strided(x, &size, &stride, 1, ScalarType::Double);
    check_launch(kLaunch(dense.const_data_ptr(), y.mutable_data_ptr(), log_abs_det.mutable_data_ptr(),
                         workspace ? static_cast<double*>(workspace->mutable_data_ptr()) : nullptr, s.rows, s.row_size,
                         alpha, beta, u0, t0, dtype_code(x, "soft_relu"), current_stream(x)),
                 "soft_relu");
  });
}

// launch(x, grad_y, grad_log, grad_x, shape, dtype, stream).
template <class Launch>
Tensor backward_cuda(const Tensor& x, const std::optional<Tensor>& grad_y, const std::optional<Tensor>& grad_log,
                     const char* op, Launch launch) {
  const DeviceGuard guard(x.get_device_index());
  return backward_op(
      x, grad_y, grad_log, [&](const Tensor& dense, const void* gy, const void* gl, Tensor& gx, const Shape& s) {
        check_launch(
            launch(dense.const_data_ptr(), gy, gl, gx.mutable_data_ptr(), s, dtype_code(x, op), current_stream(x)), op);
      });
}

Tensor soft_relu_backward_cuda(const Tensor& x, std::optional<Tensor> grad_y, std::optional<Tensor> grad_log,
                               double alpha, double beta, double u0) {
  return backward_cuda(
      x, grad_y, grad_log, "soft_relu_backward",
      [&](const void* from, const void* gy, const void* gl, void* to, const Shape& s, int dtype, cudaStream_t stream) {
        return led_fast_soft_relu_backward(from, gy, gl, to, s.rows, s.row_size, alpha, beta, u0, dtype, stream);
      });
}

Tensor soft_relu_inverse_backward_cuda(const Tensor& y, std::optional<Tensor> grad_x, std::optional<Tensor> grad_log,
                                       double alpha, double beta, double u0, double t0) {
  return backward_cuda(
      y, grad_x, grad_log, "soft_relu_inverse_backward",
      [&](const void* from, const void* gx, const void* gl, void* to, const Shape& s, int dtype, cudaStream_t stream) {
        return led_fast_soft_relu_inverse_backward(from, gx, gl, to, s.rows, s.row_size, alpha, beta, u0, t0, dtype,
                                                   stream);
      });
}

Tensor workspace_of(const Tensor& x, int64_t size, ScalarType dtype) {
  const int64_t stride = 1;
  return empty_strided(x, &size, &stride, 1, dtype);
}

std::tuple<Tensor, Tensor> per_feature_cuda(const Tensor& x, const Tensor& ratio, const Tensor& sharpness,
                                            const Tensor& u0, const Tensor& t0, bool inverse) {
  const DeviceGuard guard(x.get_device_index());
  return per_feature_op(
      x, {ratio, sharpness, u0, t0},
      [&](const Tensor& dense, const Numbers& numbers, Tensor& y, Tensor& log_abs_det, const FeatureShape& s) {
        Tensor workspace = workspace_of(x, s.rows * pieces_of(s.row_size), ScalarType::Double);
        Tensor table = workspace_of(x, kTableRows * s.features, log_dtype(x));
        check_launch(
            led_fast_soft_relu_per_feature(dense.const_data_ptr(), y.mutable_data_ptr(), log_abs_det.mutable_data_ptr(),
                                           static_cast<double*>(workspace.mutable_data_ptr()),
                                           numbers.tensors[0].const_data_ptr(), numbers.tensors[1].const_data_ptr(),
                                           numbers.tensors[2].const_data_ptr(), numbers.tensors[3].const_data_ptr(),
                                           numbers.wide(), table.mutable_data_ptr(), s.rows, s.row_size, s.features,
                                           s.run, inverse, dtype_code(x, "soft_relu_per_feature"), current_stream(x)),
            "soft_relu_per_feature");
      });
}

std::tuple<Tensor, Tensor> per_feature_backward_cuda(const Tensor& x, std::optional<Tensor> grad_y,
                                                     std::optional<Tensor> grad_log, const Tensor& ratio,
                                                     const Tensor& sharpness, const Tensor& u0, const Tensor& t0,
                                                     bool inverse) {
  const DeviceGuard guard(x.get_device_index());
  return per_feature_backward_op(
      x, grad_y, grad_log, {ratio, sharpness, u0, t0},
      [&](const Tensor& dense, const void* gy, const void* gl, const Numbers& numbers, Tensor& gx, Tensor& grads,
          const FeatureShape& s) {
        const int64_t chunks = outer_chunks(s.rows, s.row_size, s.features, s.run);
        Tensor workspace = workspace_of(x, 4 * s.features * chunks, ScalarType::Double);
        Tensor table = workspace_of(x, kTableRows * s.features, log_dtype(x));
        check_launch(led_fast_soft_relu_per_feature_backward(
                         dense.const_data_ptr(), gy, gl, gx.mutable_data_ptr(),
                         static_cast<double*>(workspace.mutable_data_ptr()), numbers.tensors[0].const_data_ptr(),
                         numbers.tensors[1].const_data_ptr(), numbers.tensors[2].const_data_ptr(),
                         numbers.tensors[3].const_data_ptr(), numbers.wide(), table.mutable_data_ptr(),
                         grads.mutable_data_ptr(), s.rows, s.row_size, s.features, s.run, inverse,
                         dtype_code(x, "soft_relu_per_feature_backward"), current_stream(x)),
                     "soft_relu_per_feature_backward");
      });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(led_fast, CUDA, m) {
  m.impl("soft_relu", TORCH_BOX(&forward_cuda<led_fast_soft_relu_forward>));
  m.impl("soft_relu_backward", TORCH_BOX(&soft_relu_backward_cuda));
  m.impl("soft_relu_inverse", TORCH_BOX(&forward_cuda<led_fast_soft_relu_inverse>));
  m.impl("soft_relu_per_feature", TORCH_BOX(&per_feature_cuda));
  m.impl("soft_relu_per_feature_backward", TORCH_BOX(&per_feature_backward_cuda));
  m.impl("soft_relu_inverse_backward", TORCH_BOX(&soft_relu_inverse_backward_cuda));
}

}  // namespace led::soft_relu
