// The torch side of the perpendicular norm's CUDA kernels.
#include <limits>

#include "common/cuda_tensor.h"
#include "perpendicular/launch.h"
#include "perpendicular/op.h"

namespace led::perpendicular {
namespace {

using torch::stable::accelerator::DeviceGuard;

Tensor workspace_for(const Tensor& x, int64_t pieces) {
  const int64_t size = 3 * x.size(0) * pieces, stride = 1;
  return empty_strided(x, &size, &stride, 1, ScalarType::Double);
}

std::tuple<Tensor, Tensor, Tensor> norm_cuda(const Tensor& x, const Tensor& weight, const Tensor& t,
                                             std::vector<int64_t> stride, std::vector<int64_t> padding,
                                             std::vector<int64_t> dilation, int64_t groups, bool keep_u) {
  const DeviceGuard guard(x.get_device_index());
  const Geometry g = geometry_of(x, weight, t, stride, padding, dilation, groups);
  STD_TORCH_CHECK(g.group_in() <= kMaxChannels && g.group_in() * g.taps() <= kMaxWeights,
                  "perpendicular_norm: at most ", kMaxChannels, " channels a group on CUDA, got ", g.group_in());
  constexpr int64_t most = std::numeric_limits<int>::max();
  STD_TORCH_CHECK(g.pixels() <= kMaxPixels && g.cells() <= kMaxCells && g.height + 2 * g.padding_h <= most &&
                      g.width + 2 * g.padding_w <= most && g.stride_h <= most && g.stride_w <= most &&
                      g.dilation_h <= most && g.dilation_w <= most,
                  "perpendicular_norm: an image, stride, padding or dilation is too large for CUDA");
  return norm_op(
      x, weight, t, g, keep_u,
      [&](const Tensor& xc, const Tensor& wc, const Tensor& tc, Tensor& norm, Tensor& coefficient, void* u) {
        const Strips strips = strips_of(g.height, g.width, g.stride_h, g.dilation_h, xc.element_size());
        Tensor workspace = workspace_for(x, strips.pieces() * groups);
        check_launch(led_fast_perpendicular_norm(
                         xc.const_data_ptr(), wc.const_data_ptr(), tc.const_data_ptr(),
                         static_cast<double*>(workspace.mutable_data_ptr()), norm.mutable_data_ptr(),
                         coefficient.mutable_data_ptr(), u, g.batch, groups, int(g.group_in()), int(g.group_out()),
                         int(g.height), int(g.width), int(g.out_height), int(g.out_width), int(g.kernel_h),
                         int(g.kernel_w), int(g.stride_h), int(g.stride_w), int(g.padding_h), int(g.padding_w),
                         int(g.dilation_h), int(g.dilation_w), dtype_code(x, "perpendicular_norm"), current_stream(x)),
                     "perpendicular_norm");
      });
}

std::tuple<Tensor, Tensor> norm_to_cuda(const Tensor& x, const Tensor& u) {
  const DeviceGuard guard(x.get_device_index());
  return norm_to_op(x, u, [&](const Tensor& xc, const Tensor& uc, Tensor& norm, Tensor& coefficient, int64_t size) {
    Tensor workspace = workspace_for(x, pieces_to(size));
    check_launch(led_fast_perpendicular_norm_to(xc.const_data_ptr(), uc.const_data_ptr(),
                                                static_cast<double*>(workspace.mutable_data_ptr()),
                                                norm.mutable_data_ptr(), coefficient.mutable_data_ptr(), x.size(0),
                                                size, dtype_code(x, "perpendicular_norm_to"), current_stream(x)),
                 "perpendicular_norm_to");
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(led_fast, CUDA, m) {
  m.impl("perpendicular_norm", TORCH_BOX(&norm_cuda));
  m.impl("perpendicular_norm_to", TORCH_BOX(&norm_to_cuda));
}

}  // namespace led::perpendicular
