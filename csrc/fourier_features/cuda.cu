// Fourier features on the GPU: a few threads of a warp have a row, and write its features side by side.
#include "common/dispatch.cuh"
#include "common/gpu.h"
#include "common/rows.cuh"
#include "fourier_features/launch.h"
#include "fourier_features/math.h"

namespace led::fourier_features {
namespace {

constexpr int kMostDirections = 4;  // of a thread, where 32 threads are not too few for that
constexpr int kCoordinates = 4;     // whose gradients are summed up at once

template <typename Real> __device__ __forceinline__ SineCosine<Real> sine_cosine(Real phase) {
  return within_reach(phase) ? sine_cosine_within_reach(phase) : sine_cosine_beyond_reach(phase);
}

template <typename T>
__global__ void __launch_bounds__(kThreads) forward_kernel(const T* x, const T* projection, T* features, int64_t rows,
                                                           int64_t dimension, int64_t directions, unsigned log2) {
  using Real = accumulate_t<T>;
  const Share share = share_of<false>(directions, 0, log2);
  if (share.row >= rows) return;
  const T* const from = x + share.row * dimension;
  T* const to = features + share.row * (dimension + 2 * directions);
#pragma unroll 1  // a few coordinates: to count them for unrolling would take a division
  for (int64_t d = share.thread; d < dimension; d += share.threads) to[d] = from[d];
  for (int64_t k = share.thread; k < directions; k += share.threads) {
    Real phase = 0;
    for (int64_t d = 0; d < dimension; ++d)
      phase += static_cast<Real>(from[d]) * static_cast<Real>(__ldg(projection + d * directions + k));
    const auto both = sine_cosine(phase);
    to[dimension + k] = T(both.sine);
    to[dimension + directions + k] = T(both.cosine);
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(const T* grad, const T* features, const T* projection, T* grad_x, int64_t rows, int64_t dimension,
                    int64_t directions, unsigned log2) {
  using Real = accumulate_t<T>;
  const Share share = share_of<false>(directions, 0, log2);
  // All threads take part in the sums: those without a row repeat the last one.
  const int64_t row = min(share.row, rows - 1), offset = row * (dimension + 2 * directions);
  const T *const of_row = grad + offset, *const of_sines = of_row + dimension,
                 *const of_cosines = of_sines + directions;
  const T *const sines = features + offset + dimension, *const cosines = sines + directions;
  for (int64_t first = 0; first < dimension; first += kCoordinates) {
    const T* columns[kCoordinates];
#pragma unroll
    for (int j = 0; j < kCoordinates; ++j) columns[j] = projection + min(first + j, dimension - 1) * directions;
    Real sums[kCoordinates] = {};
    for (int64_t k = share.thread; k < directions; k += share.threads) {
      const Real of_phase = static_cast<Real>(of_sines[k]) * static_cast<Real>(cosines[k]) -
                            static_cast<Real>(of_cosines[k]) * static_cast<Real>(sines[k]);
#pragma unroll
      for (int j = 0; j < kCoordinates; ++j) sums[j] += of_phase * static_cast<Real>(__ldg(columns[j] + k));
    }
#pragma unroll
    for (int j = 0; j < kCoordinates; ++j) {
      const Real sum = group_sum(sums[j], share.threads);
      const int64_t d = first + j;
      if (share.thread == 0 && share.row < rows && d < dimension)
        grad_x[row * dimension + d] = T(static_cast<Real>(of_row[d]) + sum);
    }
  }
}

}  // namespace
}  // namespace led::fourier_features

using namespace led;
using namespace led::fourier_features;

extern "C" cudaError_t led_fast_fourier_features(const void* x, const void* projection, void* features, int64_t rows,
                                                 int64_t dimension, int64_t directions, int dtype,
                                                 cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  return dispatch(dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const int log2 = threads_log2(directions, kMostDirections);
    return GPU_LAUNCH((forward_kernel<T>), blocks_of_rows(rows, log2), kThreads, 0, stream, static_cast<const T*>(x),
                      static_cast<const T*>(projection), static_cast<T*>(features), rows, dimension, directions,
                      unsigned(log2));
  });
}

extern "C" cudaError_t led_fast_fourier_features_backward(const void* grad, const void* features,
                                                          const void* projection, void* grad_x, int64_t rows,
                                                          int64_t dimension, int64_t directions, int dtype,
                                                          cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  return dispatch(dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const int log2 = threads_log2(directions, kMostDirections);
    return GPU_LAUNCH((backward_kernel<T>), blocks_of_rows(rows, log2), kThreads, 0, stream,
                      static_cast<const T*>(grad), static_cast<const T*>(features), static_cast<const T*>(projection),
                      static_cast<T*>(grad_x), rows, dimension, directions, unsigned(log2));
  });
}
