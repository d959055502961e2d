// The torch side of the mixture's CUDA kernels.
#include "common/cuda_tensor.h"
#include "mixture/launch.h"
#include "mixture/op.h"

namespace led::mixture {
namespace {

using torch::stable::accelerator::DeviceGuard;

Tensor numbers(const Tensor& x, int64_t size) {
  const int64_t stride = 1;
  return empty_strided(x, &size, &stride, 1, real_dtype(x));
}

std::tuple<Tensor, Tensor, Tensor> forward_cuda(const Tensor& x, const Tensor& means, const Tensor& log_scales,
                                                const Tensor& log_weights, bool keep) {
  const DeviceGuard guard(x.get_device_index());
  return forward_op(x, means, log_scales, log_weights, keep, [&](const Problem& p, Tensor& log_prob, const Kept& kept) {
    Tensor table = numbers(x, table_size(p.components(), p.dimension()));
    check_launch(
        led_fast_mixture_log_prob(p.x.const_data_ptr(), log_prob.mutable_data_ptr(), kept.score, kept.shares,
                                  table.mutable_data_ptr(), p.means.const_data_ptr(), p.log_scales.const_data_ptr(),
                                  p.log_weights.const_data_ptr(), p.samples(), p.dimension(), p.components(),
                                  dtype_code(x, "mixture_log_prob"), current_stream(x)),
        "mixture_log_prob");
  });
}

Gradients backward_cuda(const Tensor& grad_log_prob, const Tensor& x, const Tensor& means, const Tensor& log_scales,
                        const Tensor& log_weights, const Tensor& shares) {
  const DeviceGuard guard(x.get_device_index());
  return backward_op(
      grad_log_prob, x, means, log_scales, log_weights, shares,
      [&](const Problem& p, const Tensor& grad, const Tensor& shares, Gradients& gradients) {
        const int64_t size = table_size(p.components(), p.dimension());
        Tensor table = numbers(x, size), workspace = numbers(x, slices_of(p.samples()) * size);
        auto& [of_means, of_scales, of_weights] = gradients;
        check_launch(led_fast_mixture_log_prob_backward(
                         grad.const_data_ptr(), p.x.const_data_ptr(), shares.const_data_ptr(),
                         of_means.mutable_data_ptr(), of_scales.mutable_data_ptr(), of_weights.mutable_data_ptr(),
                         table.mutable_data_ptr(), workspace.mutable_data_ptr(), p.means.const_data_ptr(),
                         p.log_scales.const_data_ptr(), p.log_weights.const_data_ptr(), p.samples(), p.dimension(),
                         p.components(), dtype_code(x, "mixture_log_prob_backward"), current_stream(x)),
                     "mixture_log_prob_backward");
      });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(led_fast, CUDA, m) {
  m.impl("mixture_log_prob", TORCH_BOX(&forward_cuda));
  m.impl("mixture_log_prob_backward", TORCH_BOX(&backward_cuda));
}

}  // namespace led::mixture
