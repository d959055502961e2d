// The part of Fourier features' torch side that all devices share: safety checks, layouts, outputs, empty inputs.
#pragma once
#include <vector>

#include "common/tensor.h"

namespace led::fourier_features {

inline Tensor dense(const Tensor& t) { return in_format(t, MemoryFormat::Contiguous); }

// Rows of D numbers, and of D + 2 K features, K directions.
struct Sizes {
  int64_t rows, dimension, directions;

  int64_t features() const { return dimension + 2 * directions; }
};

// `last` is the size that the last dimension of t must have.
inline Sizes sizes_of(const char* op, const Tensor& t, const Tensor& projection, int64_t last) {
  STD_TORCH_CHECK(projection.dim() == 2 && t.dim() > 0 && t.size(t.dim() - 1) == last, op,
                  ": x must have shape (..., D), projection (D, K), features (..., D + 2 K)");
  STD_TORCH_CHECK(t.scalar_type() == projection.scalar_type() && t.device() == projection.device(), op,
                  ": dtypes and devices must agree");
  int64_t rows = 1;
  for (int64_t d = 0; d + 1 < t.dim(); ++d) rows *= t.size(d);
  return {rows, projection.size(0), projection.size(1)};
}

// Uninitialised and contiguous: t's shape but for the last size.
inline Tensor empty_rows(const Tensor& t, int64_t last) {
  std::vector<int64_t> sizes(t.sizes().begin(), t.sizes().end()), strides(sizes.size());
  sizes.back() = last;
  int64_t stride = 1;
  for (size_t d = sizes.size(); d-- > 0; stride *= std::max<int64_t>(1, sizes[d])) strides[d] = stride;
  return empty_strided(t, sizes.data(), strides.data(), t.dim(), t.scalar_type());
}

// launch(x, projection, features, sizes), all contiguous; never called without features.
template <class Launch> Tensor forward_op(const Tensor& x, const Tensor& projection, Launch launch) {
  STD_TORCH_CHECK(projection.dim() == 2, "fourier_features: projection must have shape (D, K)");
  const Sizes s = sizes_of("fourier_features", x, projection, projection.size(0));
  Tensor features = empty_rows(x, s.features());
  if (s.rows > 0 && s.features() > 0) launch(dense(x), dense(projection), features, s);
  return features;
}

// launch(grad, features, projection, grad_x, sizes), likewise.
template <class Launch>
Tensor backward_op(const Tensor& grad, const Tensor& features, const Tensor& projection, Launch launch) {
  constexpr auto op = "fourier_features_backward";
  STD_TORCH_CHECK(projection.dim() == 2 && same_sizes(grad, features), op, ": grad must have the shape of features");
  const Sizes s = sizes_of(op, features, projection, projection.size(0) + 2 * projection.size(1));
  STD_TORCH_CHECK(grad.scalar_type() == features.scalar_type() && grad.device() == features.device(), op,
                  ": dtypes and devices must agree");
  Tensor grad_x = empty_rows(features, s.dimension);
  if (s.rows > 0 && s.dimension > 0) launch(dense(grad), dense(features), dense(projection), grad_x, s);
  return grad_x;
}

}  // namespace led::fourier_features
