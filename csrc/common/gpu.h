// The one header a .cu file includes: CUDA itself under nvcc, the SIMT executor of the tests under a host compiler.
#pragma once
#ifdef LED_FAST_SIMT
#include "simt/simt.h"

inline float exp2_flushed(float x) { return x < -126 ? 0.0f : exp2f(x); }
#else
#include <cooperative_groups.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

// 2^x with 0 for subnormal results, which cost exp2f four instructions of five.
__device__ __forceinline__ float exp2_flushed(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

#define GPU_START(kernel, grid, block, shared_bytes, stream, ...) \
  ::led::start((kernel), (grid), (block), (shared_bytes), (stream), __VA_ARGS__)

// Declares `T* name`: the dynamic shared memory of the block, aligned to 16 bytes.
#define GPU_DYNAMIC_SHARED(T, name)                                          \
  extern __shared__ __align__(16) unsigned char gpu_dynamic_shared_memory[]; \
  T* const name = reinterpret_cast<T*>(gpu_dynamic_shared_memory)
#endif

#include <cstddef>
#include <cstdint>

// Launches `kernel` and gives the cudaError_t of this launch: not what an earlier call of anyone left behind, which
// cudaGetLastError() would give. A kernel whose template arguments hold a comma goes in parentheses:
// GPU_LAUNCH((kernel<float, 4>), blocks, threads, 0, stream, x, y).
#define GPU_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ::led::take_error(GPU_START(kernel, grid, block, shared_bytes, stream, __VA_ARGS__))

namespace led {

// An error that is returned is not left behind as well, where the next to ask would take it for its own.
inline cudaError_t take_error(cudaError_t error) {
  if (error != cudaSuccess) cudaGetLastError();
  return error;
}

#ifndef LED_FAST_SIMT
template <typename... Parameters, typename... Arguments>
cudaError_t start(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                  const Arguments&... arguments) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, arguments...);
}
#endif

// N consecutive elements that travel as one memory access of at most 16 bytes.
template <typename T, int N> struct alignas(sizeof(T) * N) Pack {
  static_assert(sizeof(T) * N <= 16, "no memory access is wider than 16 bytes");
  T values[N];
  __host__ __device__ T& operator[](int i) { return values[i]; }
  __host__ __device__ const T& operator[](int i) const { return values[i]; }
};

// Elements of T in one 16-byte access.
template <typename T> constexpr int kPackSize = 16 / sizeof(T);

// Whether such accesses may begin there.
inline bool aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

inline unsigned blocks_for(int64_t items, int64_t per_block) { return unsigned((items + per_block - 1) / per_block); }

// The type sums of T are kept in: float for half precision.
template <typename T> struct AccumulateType {
  using type = T;
};
template <> struct AccumulateType<__half> {
  using type = float;
};
template <> struct AccumulateType<__nv_bfloat16> {
  using type = float;
};
template <typename T> using accumulate_t = typename AccumulateType<T>::type;

}  // namespace led
