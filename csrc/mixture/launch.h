// Launchers of the mixture's CUDA kernels. They return the error of the launch and do not wait.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

namespace led::mixture {

// A warp meets so many components at once. To as many they are filled up, by copies of the last one without weight.
constexpr int64_t kTogether = 128;

// A table of [number][component]: the D means μ, the D rates ρ, and a.
__host__ __device__ constexpr int64_t filled_up(int64_t components) {
  return (components + kTogether - 1) / kTogether * kTogether;
}
__host__ __device__ constexpr int64_t table_size(int64_t components, int64_t dimension) {
  return filled_up(components) * (2 * dimension + 1);
}

// A warp of the backward pass has one component and a slice of the samples, and leaves 2 D + 1 sums in the workspace.
constexpr int64_t kSliceSize = 512, kMostSlices = 64;
__host__ __device__ constexpr int64_t slices_of(int64_t samples) {
  const int64_t slices = (samples + kSliceSize - 1) / kSliceSize;
  return slices < kMostSlices ? slices : kMostSlices;
}

}  // namespace led::mixture

// x: samples * dimension elements of `dtype`; all else is float64 for float64 and else float32. means, log_scales:
// components * dimension. table: table_size elements. score: as many as x, and shares: 2 * samples, or both null.
extern "C" cudaError_t led_fast_mixture_log_prob(const void* x, void* log_prob, void* score, void* shares, void* table,
                                                 const void* means, const void* log_scales, const void* log_weights,
                                                 int64_t samples, int64_t dimension, int64_t components, int dtype,
                                                 cudaStream_t stream);

// shares: what led_fast_mixture_log_prob has written. workspace: slices_of(samples) * table_size elements.
extern "C" cudaError_t led_fast_mixture_log_prob_backward(const void* grad_log_prob, const void* x, const void* shares,
                                                          void* grad_means, void* grad_log_scales,
                                                          void* grad_log_weights, void* table, void* workspace,
                                                          const void* means, const void* log_scales,
                                                          const void* log_weights, int64_t samples, int64_t dimension,
                                                          int64_t components, int dtype, cudaStream_t stream);
