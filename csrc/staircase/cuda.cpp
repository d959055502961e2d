// The torch side of the staircase's CUDA kernels.
#include "common/cuda_tensor.h"
#include "staircase/launch.h"
#include "staircase/op.h"

namespace led::staircase {
namespace {

using torch::stable::accelerator::DeviceGuard;

Tensor vector_of(const Tensor& like, int64_t size, ScalarType dtype) {
  const int64_t stride = 1;
  return empty_strided(like, &size, &stride, 1, dtype);
}

// For the sums of samples that several blocks share.
std::optional<Tensor> sample_workspace(const Tensor& x, const Layout& l) {
  const int64_t pieces = pieces_of(l.sample_stride());
  if (pieces == 1) return std::nullopt;
  return vector_of(x, l.samples * pieces, ScalarType::Double);
}

double* data_of(std::optional<Tensor>& workspace) {
  return workspace ? static_cast<double*>(workspace->mutable_data_ptr()) : nullptr;
}

std::tuple<Tensor, Tensor> forward_cuda(const Tensor& x, const Tensor& centers, const Tensor& heights,
                                        const Tensor& steepness, const Tensor& slope) {
  const DeviceGuard guard(x.get_device_index());
  return map_op(x, centers, heights, steepness, slope,
                [&](const Tensor& dense, Tensor& y, Tensor& log_abs_det, const Parameters& p, const Layout& l) {
                  auto workspace = sample_workspace(x, l);
                  check_launch(led_fast_staircase_forward(
                                   dense.const_data_ptr(), y.mutable_data_ptr(), log_abs_det.mutable_data_ptr(),
                                   data_of(workspace), p.centers.const_data_ptr(), p.heights.const_data_ptr(),
                                   p.steepness.const_data_ptr(), p.slope.const_data_ptr(), l.samples, l.features,
                                   l.inner, l.steps, l.interleaved, dtype_code(x, "staircase"), current_stream(x)),
                               "staircase");
                });
}

std::tuple<Tensor, Tensor, Tensor> inverse_cuda(const Tensor& y, const Tensor& centers, const Tensor& heights,
                                                const Tensor& steepness, const Tensor& slope, bool keep) {
  const DeviceGuard guard(y.get_device_index());
  return inverse_op(
      y, centers, heights, steepness, slope, keep,
      [&](const Tensor& dense, Tensor& x, Tensor& log_abs_det, void* kept, const Parameters& p, const Layout& l) {
        auto workspace = sample_workspace(y, l);
        Tensor table = vector_of(y, l.features * table_size(l.steps), real_dtype(y));
        check_launch(led_fast_staircase_inverse(dense.const_data_ptr(), x.mutable_data_ptr(), kept,
                                                log_abs_det.mutable_data_ptr(), data_of(workspace),
                                                table.mutable_data_ptr(), p.centers.const_data_ptr(),
                                                p.heights.const_data_ptr(), p.steepness.const_data_ptr(),
                                                p.slope.const_data_ptr(), l.samples, l.features, l.inner, l.steps,
                                                l.interleaved, dtype_code(y, "staircase_inverse"), current_stream(y)),
                     "staircase_inverse");
      });
}

template <bool kInverse>
Gradients backward_cuda(const Tensor& x, const Tensor& centers, const Tensor& heights, const Tensor& steepness,
                        const Tensor& slope, std::optional<Tensor> grad_value, std::optional<Tensor> grad_log) {
  const char* op = kInverse ? "staircase_inverse_backward" : "staircase_backward";
  STD_TORCH_CHECK(!kInverse || x.scalar_type() == real_dtype(x), op, ": x must be float64 or float32");
  const DeviceGuard guard(x.get_device_index());
  return backward_op(
      x, centers, heights, steepness, slope, grad_value, grad_log,
      [&](const Tensor& dense, const void* g, const void* gl, Gradients& gradients, const Parameters& p,
          const Layout& l) {
        Tensor workspace =
            vector_of(x, l.features * slices_of(l.samples * l.inner) * sums_of_steps(l.steps), ScalarType::Double);
        auto& [gx, of_centers, of_heights, of_steepness, of_slope] = gradients;
        check_launch(led_fast_staircase_backward(
                         dense.const_data_ptr(), g, gl, gx.mutable_data_ptr(), of_centers.mutable_data_ptr(),
                         of_heights.mutable_data_ptr(), of_steepness.mutable_data_ptr(), of_slope.mutable_data_ptr(),
                         static_cast<double*>(workspace.mutable_data_ptr()), p.centers.const_data_ptr(),
                         p.heights.const_data_ptr(), p.steepness.const_data_ptr(), p.slope.const_data_ptr(), l.samples,
                         l.features, l.inner, l.steps, l.interleaved, kInverse, dtype_code(x, op), current_stream(x)),
                     op);
      });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(led_fast, CUDA, m) {
  m.impl("staircase", TORCH_BOX(&forward_cuda));
  m.impl("staircase_backward", TORCH_BOX(&backward_cuda<false>));
  m.impl("staircase_inverse", TORCH_BOX(&inverse_cuda));
  m.impl("staircase_inverse_backward", TORCH_BOX(&backward_cuda<true>));
}

}  // namespace led::staircase
