// log(1 + e) in float32, for CPU and GPU.
#pragma once

#ifndef LED_FUNCTION
#define LED_FUNCTION inline __attribute__((always_inline))
#endif

namespace led {

// For 0 <= e <= 1, without a branch.
LED_FUNCTION float log1p_polynomial(float e) {
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

}  // namespace led
