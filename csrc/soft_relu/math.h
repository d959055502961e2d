// The soft-ReLU (LED, Eq. 10-11) in the form that overflows nowhere and needs one exponential.
//
//   L(x)  = log(e^{alpha v} + e^{beta v}) / alpha - t0,   v = x - u0
//   L'(x) = r + (1 - r) sigmoid(k v),                     r = beta / alpha, k = alpha - beta
//
// With e = exp(-|k v|) and w = (1 - r) e / (1 + e):
//   L = (v >= 0 ? v : r v) + log(1 + e) / alpha - t0
//   L' = v >= 0 ? 1 - w : r + w
//   L'' = k w / (1 + e)
// Written once for scalars (CUDA) and SIMD vectors (CPU): the includer supplies exp_nonpositive, log1p_unit and abs.
#pragma once
#include <cmath>

#ifndef LED_FUNCTION
#define LED_FUNCTION inline __attribute__((always_inline))
#endif

namespace led::soft_relu {

template <class Real> struct Parameters {
  Real slope_ratio;   // r
  Real sharpness;     // k
  Real inverse_alpha;
  Real u0, t0;
  int safe_factors;   // so many L' multiply to a normal number: their product needs one logarithm

  Parameters(double alpha, double beta, double u0_, double t0_)
      : slope_ratio(Real(beta / alpha)), sharpness(Real(alpha - beta)), inverse_alpha(Real(1 / alpha)),
        u0(Real(u0_)), t0(Real(t0_)) {
    const double smallest = sizeof(Real) == 4 ? 1e-37 : 1e-307;
    const double count = std::log(smallest) / std::log(beta / alpha);
    safe_factors = count < 1 ? 1 : count > 16 ? 16 : int(count);
  }
};

template <class V, class Real> struct Terms {
  V v, e, inverse, w;  // inverse = 1 / (1 + e)
  const Parameters<Real>& p;

  LED_FUNCTION Terms(V x, const Parameters<Real>& parameters) : p(parameters) {
    v = x - p.u0;
    e = exp_nonpositive(-abs(v * p.sharpness));
    inverse = 1 / (1 + e);
    w = (1 - p.slope_ratio) * e * inverse;
  }
  LED_FUNCTION V value() const { return (v >= 0 ? v : v * p.slope_ratio) + log1p_unit(e) * p.inverse_alpha - p.t0; }
  LED_FUNCTION V first() const { return v >= 0 ? 1 - w : w + p.slope_ratio; }
  LED_FUNCTION V second() const { return w * p.sharpness * inverse; }
};

}  // namespace led::soft_relu
