// How the launchers of CUDA kernels are told the dtype of their tensors.
#pragma once
#include <cuda_runtime_api.h>

namespace led {

enum Dtype : int { kFloat64, kFloat32, kBFloat16, kFloat16 };

// Calls f with a null pointer of the dtype's type. For kernels without half precision, whose codes are refused.
template <typename F> cudaError_t dispatch_real(int dtype, F f) {
  switch (dtype) {
    case kFloat64: return f(static_cast<double*>(nullptr));
    case kFloat32: return f(static_cast<float*>(nullptr));
    default: return cudaErrorInvalidValue;
  }
}

}  // namespace led
