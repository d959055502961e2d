// What the torch side and the kernels of the staircase agree on: launchers and workspaces.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

namespace led::staircase {

// A sample of more elements is shared by several blocks, which leave one sum each in the workspace.
constexpr int64_t kPieceSize = 2048;
__host__ __device__ constexpr int64_t pieces_of(int64_t sample_size) {
  return (sample_size + kPieceSize - 1) / kPieceSize;
}

// So many elements of one feature belong to a block of the backward pass, which leaves 3 K + 1 sums in the workspace.
constexpr int64_t kSliceSize = 512;
__host__ __device__ constexpr int64_t slices_of(int64_t elements_of_feature) {
  return (elements_of_feature + kSliceSize - 1) / kSliceSize;
}
__host__ __device__ constexpr int64_t sums_of_steps(int64_t steps) { return 3 * steps + 1; }

// For each feature: the places where its staircase bends, from minus to plus infinity, then its values there, then
// m, Σ a and the distance in x over which no step bends.
__host__ __device__ constexpr int64_t table_size(int64_t steps) { return 2 * (6 * steps + 2) + 3; }

}  // namespace led::staircase

// x, y: samples * features * inner elements of `dtype`, where those of a feature lie side by side, or those of all
// features where `interleaved`. Parameters, log_abs_det and table: float64 for float64 and else float32.
// workspace: samples * pieces_of(features * inner) elements where that is more than samples; else it may be null.
extern "C" cudaError_t led_fast_staircase_forward(const void* x, void* y, void* log_abs_det, double* workspace,
                                                  const void* centers, const void* heights, const void* steepness,
                                                  const void* slope, int64_t samples, int64_t features, int64_t inner,
                                                  int64_t steps, bool interleaved, int dtype, cudaStream_t stream);

// Also `kept`, x in the dtype it was computed in, unless it is null. table: features * table_size(steps) elements.
extern "C" cudaError_t led_fast_staircase_inverse(const void* y, void* x, void* kept, void* log_abs_det,
                                                  double* workspace, void* table, const void* centers,
                                                  const void* heights, const void* steepness, const void* slope,
                                                  int64_t samples, int64_t features, int64_t inner, int64_t steps,
                                                  bool interleaved, int dtype, cudaStream_t stream);

// Of the staircase, or of its inverse at x = what that found. A null grad_value or grad_log_abs_det stands for zeros.
// workspace: features * slices_of(samples * inner) * sums_of_steps(steps) elements.
extern "C" cudaError_t led_fast_staircase_backward(const void* x, const void* grad_value, const void* grad_log_abs_det,
                                                   void* grad_x, void* grad_centers, void* grad_heights,
                                                   void* grad_steepness, void* grad_slope, double* workspace,
                                                   const void* centers, const void* heights, const void* steepness,
                                                   const void* slope, int64_t samples, int64_t features, int64_t inner,
                                                   int64_t steps, bool interleaved, bool of_inverse, int dtype,
                                                   cudaStream_t stream);
