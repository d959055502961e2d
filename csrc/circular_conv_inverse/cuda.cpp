// The torch side of the CUDA kernels that undo circular convolutions. led_fast/ops/_circular_conv_inverse_cuda.py puts
// the Fourier transforms around them.
#include "circular_conv_inverse/launch.h"
#include "circular_conv_inverse/op.h"
#include "common/cuda_tensor.h"

#include <optional>
#include <vector>

namespace led::circular_conv_inverse {
namespace {

constexpr const char* kOp = "circular_conv_inverse";

using Guard = torch::stable::accelerator::DeviceGuard;

int64_t frequencies_of(int64_t rows, int64_t columns) { return rows * (columns / 2 + 1); }

Tensor empty_contiguous(const Tensor& like, std::vector<int64_t> sizes) {
  std::vector<int64_t> strides(sizes.size());
  int64_t stride = 1;
  for (size_t d = sizes.size(); d-- > 0; stride *= sizes[d]) strides[d] = stride;
  return empty_strided(like, sizes.data(), strides.data(), int64_t(sizes.size()), like.scalar_type());
}

std::tuple<Tensor, Tensor> invert(const Tensor& weight, int64_t rows, int64_t columns) {
  const Problem p = problem_of(weight, 0, rows, columns);
  const Guard guard(weight.get_device_index());
  const Tensor dense = in_format(weight, MemoryFormat::Contiguous);
  const int64_t frequencies = frequencies_of(rows, columns), stride = 1;
  Tensor inverses = empty_contiguous(weight, {p.channels, p.channels, frequencies, 2});
  Tensor log_abs_det = empty_contiguous(weight, {});
  if (p.channels == 0) {
    torch::stable::zero_(log_abs_det);
    return {inverses, log_abs_det};
  }
  Tensor phases = empty_vector(weight, p.taps.count() * frequencies * 2);
  Tensor logs = empty_strided(weight, &frequencies, &stride, 1, ScalarType::Double);
  check_launch(led_fast_circular_conv_invert(
                   dense.const_data_ptr(), inverses.mutable_data_ptr(), log_abs_det.mutable_data_ptr(),
                   phases.mutable_data_ptr(), static_cast<double*>(logs.mutable_data_ptr()), int(p.channels),
                   p.taps.rows, p.taps.columns, rows, columns, dtype_code(weight, kOp), current_stream(weight)),
               kOp);
  return {inverses, log_abs_det};
}

void check_spectrum(const Tensor& spectrum, const Tensor& inverses) {
  STD_TORCH_CHECK(spectrum.dim() == 5 && spectrum.size(4) == 2 && inverses.dim() == 4 && inverses.is_contiguous() &&
                      inverses.size(0) == spectrum.size(1) && inverses.size(1) == spectrum.size(1) &&
                      inverses.size(2) == spectrum.size(2) * spectrum.size(3) && inverses.size(3) == 2 &&
                      inverses.scalar_type() == spectrum.scalar_type(),
                  "circular_conv_inverse: a spectrum must have shape (B, C, H, W / 2 + 1, 2) and fit the inverses");
}

Tensor solve(const Tensor& spectrum, const Tensor& inverses, bool adjoint) {
  check_spectrum(spectrum, inverses);
  const Guard guard(spectrum.get_device_index());
  const Tensor dense = in_format(spectrum, MemoryFormat::Contiguous);
  Tensor solved = empty_with_strides_of(dense);
  check_launch(
      led_fast_circular_conv_solve(dense.const_data_ptr(), inverses.const_data_ptr(), solved.mutable_data_ptr(),
                                   spectrum.size(0), int(spectrum.size(1)), inverses.size(2), adjoint,
                                   dtype_code(spectrum, kOp), current_stream(spectrum)),
      kOp);
  return solved;
}

Tensor weight_gradient(const std::optional<Tensor>& grad_spectrum, const std::optional<Tensor>& grad_log_abs_det,
                       const Tensor& weight, const Tensor& solved, const Tensor& inverses, int64_t columns) {
  check_spectrum(solved, inverses);
  STD_TORCH_CHECK(!grad_spectrum || (same_sizes(*grad_spectrum, solved) && is_like(*grad_spectrum, solved)),
                  "circular_conv_inverse: the gradient's spectrum must have x's shape, dtype and device");
  check_log_gradient(grad_log_abs_det, weight);
  const Problem p = problem_of(weight, solved.size(0), solved.size(2), columns);
  STD_TORCH_CHECK(p.channels == solved.size(1) && columns / 2 + 1 == solved.size(3),
                  "circular_conv_inverse: weight and columns must fit the spectrum");
  const Guard guard(weight.get_device_index());
  std::optional<Tensor> grad;
  if (grad_spectrum) grad = in_format(*grad_spectrum, MemoryFormat::Contiguous);
  const Tensor dense = in_format(solved, MemoryFormat::Contiguous);
  Tensor grad_weight = empty_with_strides_of(in_format(weight, MemoryFormat::Contiguous));
  Tensor phases = empty_vector(weight, p.taps.count() * inverses.size(2) * 2);
  Tensor products = empty_vector(weight, inverses.numel());
  check_launch(led_fast_circular_conv_weight_gradient(
                   grad ? grad->const_data_ptr() : nullptr, dense.const_data_ptr(), inverses.const_data_ptr(),
                   grad_log_abs_det ? grad_log_abs_det->const_data_ptr() : nullptr, grad_weight.mutable_data_ptr(),
                   phases.mutable_data_ptr(), products.mutable_data_ptr(), p.samples, int(p.channels), p.taps.rows,
                   p.taps.columns, p.grid.rows, columns, dtype_code(weight, kOp), current_stream(weight)),
               kOp);
  return grad_weight;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(led_fast, CUDA, m) {
  m.impl("circular_conv_invert", TORCH_BOX(&invert));
  m.impl("circular_conv_solve", TORCH_BOX(&solve));
  m.impl("circular_conv_weight_gradient", TORCH_BOX(&weight_gradient));
}

}  // namespace led::circular_conv_inverse
