// The part of the torch side that all devices share: safety checks, outputs, empty inputs.
#pragma once
#include <optional>
#include <tuple>
#include <vector>

#include "circulant_logdet/math.h"
#include "common/tensor.h"

namespace led::circulant_logdet {

// `batch` weights of shape (channels, channels, taps), on one grid.
struct Problem {
  int64_t batch, channels;
  Taps taps;
  Grid grid;

  int64_t entries() const { return channels * channels; }
  int64_t weight_size() const { return entries() * taps.count(); }
};

inline Problem problem_of(const Tensor& weight, int64_t rows, int64_t columns) {
  const int64_t dim = weight.dim();
  STD_TORCH_CHECK(
      dim >= 4 && weight.size(dim - 3) == weight.size(dim - 4) && weight.size(dim - 2) > 0 && weight.size(dim - 1) > 0,
      "circulant_logdet: weight must have shape (..., C, C, kh, kw)");
  STD_TORCH_CHECK(weight.scalar_type() == ScalarType::Float || weight.scalar_type() == ScalarType::Double,
                  "circulant_logdet: weight must be float32 or float64");
  STD_TORCH_CHECK(rows > 0 && columns > 0 && rows < (int64_t(1) << 30) / columns && weight.size(dim - 3) < (1 << 15),
                  "circulant_logdet: grid or channels out of range");
  int64_t batch = 1;
  for (int64_t d = 0; d < dim - 4; ++d) batch *= weight.size(d);
  return {batch, weight.size(dim - 3), {weight.size(dim - 2), weight.size(dim - 1)}, {rows, columns}};
}

inline Tensor empty_contiguous(const Tensor& like, std::vector<int64_t> sizes) {
  std::vector<int64_t> strides(sizes.size());
  int64_t stride = 1;
  for (size_t d = sizes.size(); d-- > 0; stride *= sizes[d]) strides[d] = stride;
  return empty_strided(like, sizes.data(), strides.data(), int64_t(sizes.size()), like.scalar_type());
}

// launch(weight, logdet, gradient or null, problem) on dense data of the weight's dtype; not called on an empty batch.
template <class Launch>
std::tuple<Tensor, std::optional<Tensor>> logdet_op(const Tensor& weight, int64_t rows, int64_t columns,
                                                    bool with_gradient, Launch launch) {
  const Problem problem = problem_of(weight, rows, columns);
  const Tensor dense = in_format(weight, MemoryFormat::Contiguous);
  const auto sizes = weight.sizes();
  const std::vector<int64_t> shape(sizes.data(), sizes.data() + sizes.size());
  Tensor logdet = empty_contiguous(weight, {shape.begin(), shape.end() - 4});
  std::optional<Tensor> gradient;
  if (with_gradient) gradient = empty_contiguous(weight, shape);
  if (problem.batch > 0 && problem.channels > 0)
    launch(dense.const_data_ptr(), logdet.mutable_data_ptr(), gradient ? gradient->mutable_data_ptr() : nullptr,
           problem);
  else torch::stable::zero_(logdet);
  return {logdet, gradient};
}

}  // namespace led::circulant_logdet
