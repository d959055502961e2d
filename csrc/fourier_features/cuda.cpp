// The torch side of Fourier features' CUDA kernels.
#include "common/cuda_tensor.h"
#include "fourier_features/launch.h"
#include "fourier_features/op.h"

namespace led::fourier_features {
namespace {

using torch::stable::accelerator::DeviceGuard;

Tensor forward_cuda(const Tensor& x, const Tensor& projection) {
  const DeviceGuard guard(x.get_device_index());
  return forward_op(x, projection, [](const Tensor& x, const Tensor& projection, Tensor& features, const Sizes& s) {
    check_launch(
        led_fast_fourier_features(x.const_data_ptr(), projection.const_data_ptr(), features.mutable_data_ptr(), s.rows,
                                  s.dimension, s.directions, dtype_code(x, "fourier_features"), current_stream(x)),
        "fourier_features");
  });
}

Tensor backward_cuda(const Tensor& grad, const Tensor& features, const Tensor& projection) {
  const DeviceGuard guard(features.get_device_index());
  return backward_op(
      grad, features, projection,
      [](const Tensor& grad, const Tensor& features, const Tensor& projection, Tensor& grad_x, const Sizes& s) {
        check_launch(led_fast_fourier_features_backward(
                         grad.const_data_ptr(), features.const_data_ptr(), projection.const_data_ptr(),
                         grad_x.mutable_data_ptr(), s.rows, s.dimension, s.directions,
                         dtype_code(features, "fourier_features_backward"), current_stream(features)),
                     "fourier_features_backward");
      });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(led_fast, CUDA, m) {
  m.impl("fourier_features", TORCH_BOX(&forward_cuda));
  m.impl("fourier_features_backward", TORCH_BOX(&backward_cuda));
}

}  // namespace led::fourier_features
