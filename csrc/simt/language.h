// CUDA's extensions to C++: function and memory qualifiers, built-in variables, launches.
#pragma once
#include <cuda_runtime.h>

#include "simt/runtime.h"

#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __constant__
#undef __managed__
#undef __grid_constant__
#undef __launch_bounds__
#undef __forceinline__
#undef __noinline__
#define __global__
#define __device__
#define __host__
#define __constant__ static
// Blocks run one after the other on one system thread, so its thread-local storage can be their shared memory. Nothing
// else lives there: the checker knows shared memory by its address and poisons it before every block.
#define __shared__ static thread_local
#define __grid_constant__
#define __launch_bounds__(...)
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __builtin_assume(condition) ((void)0)

#define threadIdx (::simt::self()->thread_index)
#define blockIdx (::simt::self()->block_index)
#define blockDim (::simt::self()->block_dim)
#define gridDim (::simt::self()->grid_dim)
constexpr int warpSize = 32;

// The caller's place, as two trailing arguments: gcc takes a builtin's line from a default argument's call site, but
// not from inside a braced initialiser.
#define SIMT_SITE_PARAMETERS const char *site_file = __builtin_FILE(), int site_line = __builtin_LINE()
#define SIMT_SITE \
  ::simt::Site { site_file, site_line }

#define GPU_START(kernel, grid, block, shared_bytes, stream, ...)                                    \
  ::simt::launch<__LINE__>(dim3(grid), dim3(block), (shared_bytes), (stream), (const void*)(kernel), \
                           [=]() { (kernel)(__VA_ARGS__); })
#define GPU_DYNAMIC_SHARED(T, name) T* const name = static_cast<T*>(::simt::self()->dynamic_shared)

namespace simt {

template <int Line, typename Body> struct LaunchSite {
  // Body's type names the function that launches and its template arguments.
  static const char* name() { return __PRETTY_FUNCTION__; }
  static const int id;
};
template <int Line, typename Body>
const int LaunchSite<Line, Body>::id = register_launch(LaunchSite<Line, Body>::name());

template <int Line, typename Body>
cudaError_t launch(dim3 grid, dim3 block, size_t dynamic_bytes, cudaStream_t, const void* kernel, Body body) {
  mark_launched(LaunchSite<Line, Body>::id);
  return run({grid, block, dynamic_bytes, kernel, [](const void* b) { (*static_cast<const Body*>(b))(); }, &body,
              sizeof body});
}

}  // namespace simt
