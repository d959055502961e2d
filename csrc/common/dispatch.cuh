// How launchers choose a kernel by dtype: f is called with a null pointer of the dtype's type.
#pragma once
#include "common/dtype.h"
#include "common/gpu.h"

namespace led {

// For kernels without half precision, whose codes are refused.
template <typename F> cudaError_t dispatch_real(int dtype, F f) {
  switch (dtype) {
    case kFloat64: return f(static_cast<double*>(nullptr));
    case kFloat32: return f(static_cast<float*>(nullptr));
    default: return cudaErrorInvalidValue;
  }
}

template <typename F> cudaError_t dispatch(int dtype, F f) {
  switch (dtype) {
    case kBFloat16: return f(static_cast<__nv_bfloat16*>(nullptr));
    case kFloat16: return f(static_cast<__half*>(nullptr));
    default: return dispatch_real(dtype, f);
  }
}

}  // namespace led
