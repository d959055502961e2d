// Sums over a warp and over a block, in a fixed order: bitwise the same on every run.
#pragma once
#include "common/gpu.h"

namespace led {

constexpr unsigned kFullMask = 0xffffffffu;

// The sum over the warp, in every lane. All 32 lanes take part.
template <typename T> __device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) value += __shfl_xor_sync(kFullMask, value, offset);
  return value;
}

// The largest value in the warp, in every lane. All 32 lanes take part.
__device__ __forceinline__ unsigned warp_max(unsigned value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) value = max(value, __shfl_xor_sync(kFullMask, value, offset));
  return value;
#else
  return __reduce_max_sync(kFullMask, value);
#endif
}

// The sum over each `threads` lanes of the warp, a power of two, in every lane. All 32 lanes take part.
template <typename T> __device__ __forceinline__ T group_sum(T value, int threads) {
  for (int offset = threads / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(kFullMask, value, offset);
  return value;
}

// The sum over a block of kThreads threads, in every thread of warp 0. All threads take part.
// `scratch` is shared memory of kThreads / 32 elements; the caller puts a barrier before it is used again.
template <int kThreads, typename T> __device__ __forceinline__ T block_sum(T value, T* scratch) {
  static_assert(kThreads % 32 == 0 && kThreads <= 1024, "whole warps");
  constexpr int kWarps = kThreads / 32;
  value = warp_sum(value);
  if constexpr (kWarps == 1) return value;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if (lane == 0) scratch[warp] = value;
  __syncthreads();
  if (warp == 0) value = warp_sum(lane < kWarps ? scratch[lane] : T(0));
  return value;
}

}  // namespace led
