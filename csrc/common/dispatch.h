// How CPU kernels are chosen by dtype: f is called with a null pointer of the dtype's type.
#pragma once
#include "common/elementary.h"
#include "common/tensor.h"

namespace led {

// For kernels without half precision, whose dtypes are refused.
template <class F> void dispatch_real(const char* op, ScalarType dtype, F f) {
  switch (dtype) {
    case ScalarType::Double: return f(static_cast<double*>(nullptr));
    case ScalarType::Float: return f(static_cast<float*>(nullptr));
    default: STD_TORCH_CHECK(false, op, ": the dtype must be float64 or float32");
  }
}

template <class F> void dispatch(const char* op, ScalarType dtype, F f) {
  switch (dtype) {
    case ScalarType::Half: return f(static_cast<Half*>(nullptr));
    case ScalarType::BFloat16: return f(static_cast<BFloat16*>(nullptr));
    default: return dispatch_real(op, dtype, f);
  }
}

}  // namespace led
