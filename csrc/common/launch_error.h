// What a user can do about a launch that failed.
#pragma once
#include <cuda_runtime_api.h>

#include <string>

namespace led {

inline std::string version_name(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// CUDA's words, and, where build, driver and GPU do not fit together, what each of them is and what to do.
inline std::string launch_error(cudaError_t error, const char* architectures) {
  const std::string said = cudaGetErrorString(error);
  if (error != cudaErrorInsufficientDriver && error != cudaErrorCallRequiresNewerDriver &&
      error != cudaErrorUnsupportedPtxVersion && error != cudaErrorNoKernelImageForDevice)
    return said;
  int driver = 0, device = 0, major = 0, minor = 0;
  std::string gpu;
  if (cudaDriverGetVersion(&driver) != cudaSuccess) driver = 0;
  if (cudaGetDevice(&device) == cudaSuccess &&
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
      cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) == cudaSuccess)
    gpu = ", the GPU has compute capability " + std::to_string(major) + "." + std::to_string(minor);
  return said + ". led_fast was built with CUDA " + version_name(CUDART_VERSION) + " for architectures " +
         architectures + "; the NVIDIA driver is for CUDA " + version_name(driver) + gpu +
         ". Update the driver, or build led_fast on this machine";
}

}  // namespace led
