// Logarithms in float32 as branch-free scalar formulas, for CPU and GPU.
#pragma once
#include <cstdint>
#include <cstring>

#include "common/everywhere.h"

namespace led {

// log(1 + e) for 0 <= e <= 1.
LED_EVERYWHERE float log1p_unit(float e) {
  float p = 5.2326713e-3f;  // minimax for log(1 + e) / e, off by 7e-8
  p = p * e - 2.9505145e-2f;
  p = p * e + 7.8225799e-2f;
  p = p * e - 1.3663232e-1f;
  p = p * e + 1.9105999e-1f;
  p = p * e - 2.4842981e-1f;
  p = p * e + 3.3319098e-1f;
  p = p * e - 4.9999493e-1f;
  p = p * e + 9.9999994e-1f;
  return p * e;
}

// log2(x) of a normal positive x, off by 0.05: its exponent, and its mantissa for the mantissa's logarithm.
LED_EVERYWHERE float rough_log2(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return float(int32_t(bits - 0x3f800000)) * 0x1p-23f + 0.043f;
}

}  // namespace led
