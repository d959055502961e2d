// The torch side of CUDA operators: dtype codes, the caller's stream, and launch errors raised as exceptions.
#pragma once
#include <cuda_runtime_api.h>
#include <torch/csrc/stable/accelerator.h>

#include "common/dtype.h"
#include "common/launch_error.h"
#include "common/tensor.h"

namespace led {

// The current stream of x's device. The caller holds a DeviceGuard.
inline cudaStream_t current_stream(const Tensor& x) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

inline int dtype_code(const Tensor& x, const char* op) {
  switch (x.scalar_type()) {
    case ScalarType::Double: return kFloat64;
    case ScalarType::Float: return kFloat32;
    case ScalarType::BFloat16: return kBFloat16;
    case ScalarType::Half: return kFloat16;
    default: STD_TORCH_CHECK(false, op, ": unsupported dtype");
  }
}

inline void check_launch(cudaError_t error, const char* op) {
  STD_TORCH_CHECK(error == cudaSuccess, op, ": ", launch_error(error, LED_FAST_CUDA_ARCHITECTURES));
}

}  // namespace led
