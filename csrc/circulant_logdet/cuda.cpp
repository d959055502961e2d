// The torch side of the circulant log-determinant's CUDA kernels.
#include <algorithm>

#include "circulant_logdet/launch.h"
#include "circulant_logdet/op.h"
#include "common/cuda_tensor.h"

namespace led::circulant_logdet {
namespace {

constexpr int64_t kInverseElements =
    1 << 23;  // complex numbers that wait to be folded into the gradient: 64 MiB of fp32

std::tuple<Tensor, std::optional<Tensor>> logdet_cuda(const Tensor& weight, int64_t rows, int64_t columns,
                                                      bool with_gradient) {
  const torch::stable::accelerator::DeviceGuard guard(weight.get_device_index());
  return logdet_op(
      weight, rows, columns, with_gradient, [&](const void* w, void* logdet, void* gradient, const Problem& p) {
        const int64_t frequencies = p.grid.frequencies(), per_frequency = p.batch * p.entries();
        const int64_t chunk = balanced_chunk(frequencies, std::max<int64_t>(1, kInverseElements / per_frequency));
        const auto workspace = [&](int64_t size, ScalarType dtype) {
          const int64_t stride = 1;
          return empty_strided(weight, &size, &stride, 1, dtype);
        };
        Tensor phases = workspace(frequencies * p.taps.cosines() * 2, weight.scalar_type());
        const int64_t bytes_of_real = weight.scalar_type() == ScalarType::Float ? 4 : 8;
        std::optional<Tensor> folded;
        if (p.channels <= warp_channels(bytes_of_real))
          folded = workspace(p.batch * p.entries() * p.taps.cosines() * 2, weight.scalar_type());
        Tensor logs = workspace(p.batch * frequencies, ScalarType::Double);
        std::optional<Tensor> inverses;
        if (gradient) inverses = workspace(chunk * per_frequency * 2, weight.scalar_type());
        check_launch(
            led_fast_circulant_logdet(
                w, logdet, gradient, phases.mutable_data_ptr(), folded ? folded->mutable_data_ptr() : nullptr,
                static_cast<double*>(logs.mutable_data_ptr()), inverses ? inverses->mutable_data_ptr() : nullptr,
                p.batch, int(p.channels), p.taps.rows, p.taps.columns, p.grid.rows, p.grid.columns, chunk,
                dtype_code(weight, "circulant_logdet"), current_stream(weight)),
            "circulant_logdet");
      });
}

Tensor forward(const Tensor& weight, int64_t rows, int64_t columns) {
  return std::get<0>(logdet_cuda(weight, rows, columns, false));
}
std::tuple<Tensor, Tensor> forward_with_gradient(const Tensor& weight, int64_t rows, int64_t columns) {
  const auto [logdet, gradient] = logdet_cuda(weight, rows, columns, true);
  return {logdet, *gradient};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(led_fast, CUDA, m) {
  m.impl("circulant_logdet", TORCH_BOX(&forward));
  m.impl("circulant_logdet_with_grad", TORCH_BOX(&forward_with_gradient));
}

}  // namespace led::circulant_logdet
