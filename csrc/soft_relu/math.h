// The soft-ReLU (LED, Eq. 10-11) in the form that overflows nowhere and needs one exponential.
//
//   L(x)  = log(e^{alpha v} + e^{beta v}) / alpha - t0,   v = x - u0
//   L'(x) = r + (1 - r) sigmoid(k v),                     r = beta / alpha, k = alpha - beta
//
// With e = exp(-|k v|):
//   L = max(v, r v) + log(1 + e) / alpha - t0
//   L' = m / (1 + e),                 m = v >= 0 ? 1 + r e : r + e
//   L'' / L' = (1 - r) k e / ((1 + e) m)
// Written once for CPU and CUDA: the includer supplies exp2_negative_abs(x), log1p_unit(e) and maximum(a, b).
#pragma once
#include <algorithm>
#include <cmath>

#ifndef LED_FUNCTION
#define LED_FUNCTION inline __attribute__((always_inline))
#endif

namespace led::soft_relu {

// So many slopes multiply to a normal number: their product needs one logarithm.
template <class Real> int safe_factors_of(double slope_ratio) {
  const double log_smallest = sizeof(Real) == 4 ? -85 : -705;
  return int(std::max(1.0, std::min(16.0, log_smallest / std::log(slope_ratio))));
}

template <class Real> struct Parameters {
  static constexpr int direction = 1;  // log|det| is direction * Σ log L'
  Real slope_ratio;                    // r
  Real sharpness, sharpness_log2;      // k, k / log 2
  Real inverse_alpha, u0, t0;
  int safe_factors;

  Parameters(double alpha, double beta, double u0_, double t0_)
      : slope_ratio(Real(beta / alpha)),
        sharpness(Real(alpha - beta)),
        sharpness_log2(Real((alpha - beta) * 1.44269504088896340736)),
        inverse_alpha(Real(1 / alpha)),
        u0(Real(u0_)),
        t0(Real(t0_)),
        safe_factors(safe_factors_of<Real>(beta / alpha)) {}
};

template <class Real, class P> LED_FUNCTION Real slope_numerator(Real v, Real e, const P& p) {
  return v >= 0 ? e * p.slope_ratio + 1 : e + p.slope_ratio;
}

// L, and L' as numerator / exp(log1p): products of numerators and sums of log1p need no division.
template <class Real> struct ForwardTerms {
  Real value, numerator, log1p;
};

template <class Real> LED_FUNCTION ForwardTerms<Real> forward_terms(Real x, const Parameters<Real>& p) {
  const Real v = x - p.u0, e = exp2_negative_abs(v * p.sharpness_log2), log1p = log1p_unit(e);
  return {log1p * p.inverse_alpha + (maximum(v, v * p.slope_ratio) - p.t0), slope_numerator(v, e, p), log1p};
}

template <class Real> struct Slopes {
  Real slope, log_slope;
};  // L' and L''/L' = (log L')'

template <class Real> LED_FUNCTION Slopes<Real> backward_terms(Real x, const Parameters<Real>& p) {
  const Real v = x - p.u0, e = exp2_negative_abs(v * p.sharpness_log2), numerator = slope_numerator(v, e, p);
  const Real reciprocal = 1 / ((e + 1) * numerator);
  return {numerator * numerator * reciprocal, e * (p.sharpness * (1 - p.slope_ratio)) * reciprocal};
}

}  // namespace led::soft_relu
