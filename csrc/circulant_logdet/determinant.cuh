// log|det| from the pivots, as one product and one logarithm.
#pragma once
#include "circulant_logdet/eliminate.cuh"

namespace led::circulant_logdet {

// mantissa 2^exponent, a product of squared absolute values. Up to 1000 factors cannot overflow the mantissa, because
// each adds less than one bit. The mantissa is 0 where a factor is zero, and NaN where one is infinite or NaN.
struct SquaredDeterminant {
  double mantissa;
  int exponent;

  __device__ __forceinline__ double log_abs() const {
    return 0.5 * (log(mantissa) + exponent * 0.69314718055994530942);
  }
};

template <typename Real> __device__ __forceinline__ SquaredDeterminant square_of(Complex<Real> pivot) {
  double x = pivot[0], y = pivot[1];
  int exponent = 0;
  if constexpr (sizeof(Real) == 8) {  // the square of a float is a normal double
    const double scale = scale_of(magnitude(pivot));
    x *= scale;
    y *= scale;
    exponent = 2 * (1023 - int(__double_as_longlong(scale) >> 52));
  }
  const double square = x * x + y * y;
  const unsigned high = unsigned(__double_as_longlong(square) >> 32);
  if (high - 0x00100000u >= 0x7fe00000u) return {square - square, 0};  // zero, infinity, NaN
  const long long mantissa = (__double_as_longlong(square) & 0xfffffffffffffll) | 0x3ff0000000000000ll;
  return {__longlong_as_double(mantissa), exponent + int(high >> 20) - 1023};
}

__device__ __forceinline__ SquaredDeterminant multiply(SquaredDeterminant a, SquaredDeterminant b) {
  return {a.mantissa * b.mantissa, a.exponent + b.exponent};
}

// The product over N neighbouring lanes, in each of them.
template <int N> __device__ __forceinline__ SquaredDeterminant product_over_lanes(SquaredDeterminant factor) {
#pragma unroll
  for (int offset = N / 2; offset > 0; offset /= 2)
    factor = multiply(factor, {__shfl_xor_sync(kFullMask, factor.mantissa, offset, N),
                               __shfl_xor_sync(kFullMask, factor.exponent, offset, N)});
  return factor;
}

// log|det| of what eliminate_in_block has been through, in every thread of the block. Ends with a barrier.
template <typename Real>
__device__ __forceinline__ double log_abs_det_in_block(const BlockMatrix<Real>& m, double* shared) {
  if (threadIdx.x < 32) {
    SquaredDeterminant product = {1, 0};
#pragma unroll 1  // a few passes, which are not worth registers
    for (int k = threadIdx.x; k < m.n; k += 32) product = multiply(product, square_of(m.pivots[k]));
    product = product_over_lanes<32>(product);
    if (threadIdx.x == 0) *shared = product.log_abs();
  }
  __syncthreads();  // it is known
  return *shared;
}

}  // namespace led::circulant_logdet
