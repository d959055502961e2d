// The soft-ReLU (LED, Eq. 10-11) in the form that overflows nowhere and needs one exponential.
//
//   L(x)  = log(e^{alpha v} + e^{beta v}) / alpha - t0,   v = x - u0
//   L'(x) = r + (1 - r) sigmoid(k v),                     r = beta / alpha, k = alpha - beta
//
// By r and k it goes on to r >= 1, where the bend is the mirror image. With e = exp(-|k v|):
//   L = (v >= 0 ? v : r v) + (1 - r) log(1 + e) / k - t0
//   L' = m / (1 + e),                 m = v >= 0 ? 1 + r e : r + e
//   L'' / L' = (1 - r) k e / ((1 + e) m)
// Written once for CPU and CUDA: the includer supplies exp2_negative_abs(x), log1p_unit(e) and maximum(a, b).
#pragma once
#include <algorithm>
#include <cmath>

#ifndef LED_FUNCTION
#define LED_FUNCTION inline __attribute__((always_inline))
#endif

#ifndef LED_HOST_DEVICE
#define LED_HOST_DEVICE
#endif

namespace led::soft_relu {

// So many slopes multiply to a normal number: their product needs one logarithm.
template <class Real> LED_HOST_DEVICE int safe_factors_of(double slope_ratio) {
  const double widest = fmax(fabs(std::log(slope_ratio)), std::log(1 + slope_ratio));  // of the numerators' logarithms
  return int(fmax(1.0, fmin(16.0, (sizeof(Real) == 4 ? 85 : 705) / widest)));
}

LED_HOST_DEVICE inline bool usable(double r, double k) { return r > 0 && k > 0; }

// What the formulas take, from alpha and beta or from r and k.
template <class Real> struct Parameters {
  static constexpr int direction = 1;  // log|det| is direction * Σ log L'
  Real slope_ratio;                    // r
  Real sharpness_log2;                 // k / log 2
  Real height, curvature;              // (1 - r) / k, (1 - r) k
  Real u0, t0;
  int safe_factors;

  Parameters() = default;
  Parameters(double alpha, double beta, double u0, double t0)
      : Parameters(beta / alpha, alpha - beta, (alpha - beta) / alpha, u0, t0) {}
  LED_HOST_DEVICE Parameters(double r, double k, double other, double u0, double t0)  // other = 1 - r
      : slope_ratio(Real(r)),
        sharpness_log2(Real(k * 1.44269504088896340736)),
        height(Real(other / k)),
        curvature(Real(other * k)),
        u0(Real(usable(r, k) ? u0 : NAN)),  // which no value and no sum survives
        t0(Real(t0)),
        safe_factors(safe_factors_of<Real>(usable(r, k) ? r : 1)) {}

  // Calls visit with every number that is not the same for all features.
  static constexpr int kNumbers = 6;
  template <class Visit> LED_FUNCTION void each(Visit visit) {
    visit(slope_ratio), visit(sharpness_log2), visit(height), visit(curvature), visit(u0), visit(t0);
  }
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
  return {log1p * p.height + ((v >= 0 ? v : v * p.slope_ratio) - p.t0), slope_numerator(v, e, p), log1p};
}

template <class Real> struct Slopes {
  Real slope, log_slope;
};  // L' and L''/L' = (log L')'

template <class Real> LED_FUNCTION Slopes<Real> backward_terms(Real x, const Parameters<Real>& p) {
  const Real v = x - p.u0, e = exp2_negative_abs(v * p.sharpness_log2), numerator = slope_numerator(v, e, p);
  const Real reciprocal = 1 / ((e + 1) * numerator);
  return {numerator * numerator * reciprocal, e * p.curvature * reciprocal};
}

}  // namespace led::soft_relu
