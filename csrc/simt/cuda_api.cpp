#include "simt/cuda_api.h"

#include <cstring>
#include <map>

#include "simt/image.h"
#include "simt/machine.h"

namespace simt {
namespace {
std::map<const void*, size_t> dynamic_limits;  // set by cudaFuncSetAttribute
cudaError_t last_error = cudaSuccess;

cudaError_t fail(cudaError_t error) { return last_error = error; }
}  // namespace

cudaError_t check_launch(const Launch& launch) {
  const dim3 g = launch.grid, b = launch.block;
  const uint64_t threads = (uint64_t)b.x * b.y * b.z;
  const auto limit = dynamic_limits.find(launch.kernel);
  const size_t dynamic_limit = limit == dynamic_limits.end() ? kDefaultDynamicBytes : limit->second;
  const bool grid_fits = g.x >= 1 && g.y >= 1 && g.z >= 1 && g.x <= 0x7fffffffu && g.y <= 65535 && g.z <= 65535;
  const bool block_fits = threads >= 1 && threads <= kMaxThreads && b.z <= 64;
  if (!grid_fits || !block_fits) return fail(cudaErrorInvalidConfiguration);
  if (launch.dynamic_bytes > dynamic_limit) return fail(cudaErrorInvalidValue);
  return cudaSuccess;
}

}  // namespace simt

extern "C" {

cudaError_t cudaGetLastError() {
  const cudaError_t error = simt::last_error;
  simt::last_error = cudaSuccess;
  return error;
}
cudaError_t cudaPeekAtLastError() { return simt::last_error; }

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = simt::kMultiprocessors; break;
    case cudaDevAttrMaxThreadsPerBlock: *value = simt::kMaxThreads; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = 2048; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = (int)simt::kDefaultDynamicBytes; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = (int)(simt::kMaxDynamicBytes + simt::image().shared_bytes);
      break;
    case cudaDevAttrWarpSize: *value = simt::kWarpSize; break;
    case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
    case cudaDevAttrComputeCapabilityMinor: *value = 0; break;
    default: return simt::fail(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  *attributes = {};
  attributes->sharedSizeBytes = simt::image().shared_bytes;  // of all kernels of the library
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;  // a hint
  if (value < 0 || (size_t)value > simt::kMaxDynamicBytes)  // beside static memory, of which all kernels have as much
    return simt::fail(cudaErrorInvalidValue);
  simt::dynamic_limits[kernel] = (size_t)value;
  return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void*, int, size_t, unsigned) {
  *blocks = 1;
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void*, int, size_t) {
  *blocks = 1;
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* destination, int value, size_t bytes, cudaStream_t) {
  memset(destination, value, bytes);
  return cudaSuccess;
}

}  // extern "C"
