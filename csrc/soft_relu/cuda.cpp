// The torch side of soft-ReLU's CUDA kernels.
#include "common/cuda_tensor.h"
#include "soft_relu/launch.h"
#include "soft_relu/op.h"

namespace led::soft_relu {
namespace {

using torch::stable::accelerator::DeviceGuard;

std::tuple<Tensor, Tensor> forward_cuda(const Tensor& x, double alpha, double beta, double u0, double t0) {
  const DeviceGuard guard(x.get_device_index());
  return forward_op(x, [&](const Tensor& dense, Tensor& y, Tensor& log_abs_det, const Shape& s) {
    const int64_t pieces = pieces_of(s.row_size), size = s.rows * pieces, stride = 1;
    std::optional<Tensor> workspace;
    if (pieces > 1) workspace = empty_strided(x, &size, &stride, 1, ScalarType::Double);
    check_launch(
        led_fast_soft_relu_forward(dense.const_data_ptr(), y.mutable_data_ptr(), log_abs_det.mutable_data_ptr(),
                                   workspace ? static_cast<double*>(workspace->mutable_data_ptr()) : nullptr, s.rows,
                                   s.row_size, alpha, beta, u0, t0, dtype_code(x, "soft_relu"), current_stream(x)),
        "soft_relu");
  });
}

Tensor backward_cuda(const Tensor& x, std::optional<Tensor> grad_y, std::optional<Tensor> grad_log, double alpha,
                     double beta, double u0) {
  const DeviceGuard guard(x.get_device_index());
  return backward_op(
      x, grad_y, grad_log, [&](const Tensor& dense, const void* gy, const void* gl, Tensor& gx, const Shape& s) {
        check_launch(
            led_fast_soft_relu_backward(dense.const_data_ptr(), gy, gl, gx.mutable_data_ptr(), s.rows, s.row_size,
                                        alpha, beta, u0, dtype_code(x, "soft_relu_backward"), current_stream(x)),
            "soft_relu_backward");
      });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(led_fast, CUDA, m) {
  m.impl("soft_relu", TORCH_BOX(&forward_cuda));
  m.impl("soft_relu_backward", TORCH_BOX(&backward_cuda));
}

}  // namespace led::soft_relu
