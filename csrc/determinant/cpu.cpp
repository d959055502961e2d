// log|det| and the transposed inverse of small matrices by one elimination, on the CPU: LAPACK's several calls take
// longer to be called than to compute. In float64 throughout.
#include <cmath>
#include <limits>
#include <tuple>
#include <utility>
#include <vector>

#include "common/dispatch.h"

namespace led::determinant {
namespace {

// Gauss-Jordan with partial pivoting: rows of [A | I], n times 2 n, become [I | A⁻¹]. Returns log|det A|; of a singular
// matrix it is -inf, and the inverse all NaN.
double invert(double* rows, int64_t n) {
  double log = 0;
  const int64_t width = 2 * n;
  for (int64_t c = 0; c < n; ++c) {
    int64_t pivot = c;
    for (int64_t r = c + 1; r < n; ++r)
      if (std::abs(rows[r * width + c]) > std::abs(rows[pivot * width + c])) pivot = r;
    double* const own = rows + c * width;
    if (pivot != c) std::swap_ranges(own, own + width, rows + pivot * width);
    const double value = own[c];
    log += std::log(std::abs(value));
    if (value == 0) {
      // Of numbers that are not finite, nothing is known.
      for (int64_t i = 0; i < n * width; ++i) log += rows[i] - rows[i];
      std::fill_n(rows, n * width, std::numeric_limits<double>::quiet_NaN());
      return log;
    }
    const double reciprocal = 1 / value;
    for (int64_t j = c; j < width; ++j) own[j] *= reciprocal;
    for (int64_t r = 0; r < n; ++r) {
      double* const row = rows + r * width;
      const double factor = row[c];
      if (r == c) continue;
      for (int64_t j = c; j < width; ++j) row[j] -= factor * own[j];
    }
  }
  return log;
}

std::tuple<Tensor, Tensor> small_inverse(const Tensor& matrix) {
  const int64_t dim = matrix.dim();
  STD_TORCH_CHECK(dim >= 2 && matrix.size(dim - 1) == matrix.size(dim - 2),
                  "small_inverse: matrix must have shape (..., n, n)");
  const int64_t n = matrix.size(dim - 1);
  const Tensor dense = in_format(matrix, MemoryFormat::Contiguous);
  Tensor transposed = empty_with_strides_of(dense);
  int64_t count = 1;
  std::vector<int64_t> strides(dim - 2);
  for (int64_t d = dim - 3; d >= 0; --d) strides[d] = count, count *= matrix.size(d);
  Tensor logs = empty_strided(matrix, matrix.sizes().data(), strides.data(), dim - 2, matrix.scalar_type());
  dispatch_real("small_inverse", matrix.scalar_type(), [&](auto* type) {
    using Real = std::remove_pointer_t<decltype(type)>;
    const auto* const from = static_cast<const Real*>(dense.const_data_ptr());
    auto* const to = static_cast<Real*>(transposed.mutable_data_ptr());
    auto* const log = static_cast<Real*>(logs.mutable_data_ptr());
    std::vector<double> rows(2 * n * n);
    for (int64_t i = 0; i < count; ++i) {
      std::fill(rows.begin(), rows.end(), 0.0);
      for (int64_t r = 0; r < n; ++r) {
        std::copy_n(from + (i * n + r) * n, n, &rows[2 * r * n]);
        rows[(2 * r + 1) * n + r] = 1;
      }
      log[i] = Real(invert(rows.data(), n));
      for (int64_t r = 0; r < n; ++r)
        for (int64_t c = 0; c < n; ++c) to[(i * n + c) * n + r] = Real(rows[(2 * r + 1) * n + c]);
    }
  });
  return {logs, transposed};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(led_fast, m) { m.def("small_inverse(Tensor matrix) -> (Tensor, Tensor)"); }

STABLE_TORCH_LIBRARY_IMPL(led_fast, CPU, m) { m.impl("small_inverse", TORCH_BOX(&small_inverse)); }

}  // namespace led::determinant
