// Leave for a kernel to have more dynamic shared memory than the 48 KiB that every launch may.
#pragma once
#include "common/gpu.h"

namespace led {

// Asks for as much as a block of the device can have, whatever is needed now: host threads that launch one kernel with
// different sizes then want the same. cudaErrorInvalidValue where it is less than `bytes`.
template <typename Kernel> cudaError_t allow_dynamic_shared(Kernel* kernel, size_t bytes) {
  int device = 0, most = 0;
  cudaFuncAttributes attributes = {};
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (error == cudaSuccess) error = cudaFuncGetAttributes(&attributes, kernel);
  if (error != cudaSuccess) return take_error(error);
  const size_t dynamic = size_t(most) - attributes.sharedSizeBytes;  // beside the kernel's static shared memory
  if (bytes > dynamic) return cudaErrorInvalidValue;
  return take_error(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(dynamic)));
}

}  // namespace led
