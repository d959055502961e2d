// The part of the torch side that all devices share: safety checks and sizes.
#pragma once
#include <optional>
#include <tuple>

#include "circulant_logdet/math.h"
#include "common/tensor.h"

namespace led::circular_conv_inverse {

using circulant_logdet::Frequency;
using circulant_logdet::Grid;
using circulant_logdet::Taps;

// `samples` images of `channels` on a grid, and a kernel of shape (channels, channels, taps).
struct Problem {
  int64_t samples, channels;
  Taps taps;
  Grid grid;

  int64_t image() const { return grid.rows * grid.columns; }
  int64_t entries() const { return channels * channels; }
};

inline Problem problem_of(const Tensor& weight, int64_t samples, int64_t rows, int64_t columns) {
  STD_TORCH_CHECK(weight.dim() == 4 && weight.size(0) == weight.size(1) && weight.size(2) > 0 && weight.size(3) > 0,
                  "circular_conv_inverse: weight must have shape (C, C, kh, kw)");
  STD_TORCH_CHECK(weight.scalar_type() == ScalarType::Float || weight.scalar_type() == ScalarType::Double,
                  "circular_conv_inverse: weight must be float32 or float64");
  STD_TORCH_CHECK(rows > 0 && columns > 0 && rows < (int64_t(1) << 30) / columns && weight.size(0) < (1 << 15),
                  "circular_conv_inverse: grid or channels out of range");
  return {samples, weight.size(0), {weight.size(2), weight.size(3)}, {rows, columns}};
}

inline bool is_like(const Tensor& a, const Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.device() == b.device();
}

inline Problem problem_of(const Tensor& images, const Tensor& weight) {
  STD_TORCH_CHECK(images.dim() == 4 && weight.dim() == 4 && images.size(1) == weight.size(0) && is_like(images, weight),
                  "circular_conv_inverse: y must have shape (B, C, H, W) and the weight's dtype and device");
  return problem_of(weight, images.size(0), images.size(2), images.size(3));
}

inline void check_log_gradient(const std::optional<Tensor>& gradient, const Tensor& weight) {
  STD_TORCH_CHECK(!gradient || (gradient->numel() == 1 && is_like(*gradient, weight)),
                  "circular_conv_inverse: grad_log_abs_det must be one number of the weight's dtype and device");
}

inline Tensor empty_vector(const Tensor& like, int64_t size) {
  const int64_t stride = 1;
  return empty_strided(like, &size, &stride, 1, like.scalar_type());
}

}  // namespace led::circular_conv_inverse
