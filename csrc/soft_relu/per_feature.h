// Gradients of soft-ReLU and of its inverse to r, k, u0 and t0, which the elements of a feature share.
//
// With z = k (x - u0), e = exp(-|z|), m = L' (1 + e), and cotangents g of L and l of log L':
//   r:  g dL/dr + l dlog L'/dr = [g (min(z, 0) - log(1 + e)) + l k (z >= 0 ? e : 1) / m] / k
//   k:  g dL/dk + l dlog L'/dk = [l k z e / ((1 + e) m) - g (|z| e / (1 + e) + log(1 + e))] (1 - r) / k^2
//   u0: minus the gradient of x;  t0: -g
// For the inverse, with G the gradient of y, the implicit function theorem has -G for g and -l for l in the first two;
// u0 gets the cotangent of x, and t0 gets G.
#pragma once
#include "soft_relu/inverse.h"

namespace led::soft_relu {

// The gradient of an element, and what it adds to its feature's sums: for r and k, the brackets.
template <class Real> struct FeatureTerms {
  static constexpr int kSums = 4;
  Real gradient, sums[kSums];
};

// right: z >= 0, or the branch of e and m. reciprocal = 1 / ((1 + e) m).
template <class Real>
LED_FUNCTION void set_r_and_k(FeatureTerms<Real>& to, bool right, Real z, Real k, Real e, Real log1p, Real m,
                              Real reciprocal, Real g, Real l) {
  // z may be infinite, with a cotangent of 0. Beyond `far` e is not what it should be, but small enough.
  constexpr Real far = InverseParameters<Real>::far, most = Real(sizeof(Real) == 4 ? 0x1p127 : 0x1p1023);
  const Real near = maximum(-far, minimum(z, far)), magnitude = right ? near : -near, slope = l * k;
  to.sums[0] =
      g * ((right ? Real(0) : maximum(z, -most)) - log1p) + slope * ((right ? e : Real(1)) * (e + 1) * reciprocal);
  to.sums[1] = slope * near * (e * reciprocal) - g * (magnitude * (e * m * reciprocal) + log1p);
}

template <class Real>
LED_FUNCTION FeatureTerms<Real> feature_terms(Real x, Real gy, Real gl, const Parameters<Real>& p) {
  const Real v = x - p.u0, k = p.sharpness_log2 * Real(kLog2), e = exp2_negative_abs(v * p.sharpness_log2);
  const Real m = slope_numerator(v, e, p), reciprocal = 1 / ((e + 1) * m);
  FeatureTerms<Real> to;
  to.gradient = gy * (m * m * reciprocal) + gl * (e * p.curvature * reciprocal);
  set_r_and_k(to, v >= 0, v * k, k, e, log1p_unit(e), m, reciprocal, gy, gl);
  to.sums[2] = -to.gradient, to.sums[3] = -gy;
  return to;
}

template <class Real>
LED_FUNCTION FeatureTerms<Real> feature_terms(Real y, Real gx, Real gl, const InverseParameters<Real>& p) {
  const Solution<Real> s = solve(y, p);
  const Real both = s.e + 1, reciprocal = 1 / (both * s.numerator), k = p.sharpness_of_x;
  FeatureTerms<Real> to;
  to.gradient = (gx - gl * (s.e * reciprocal * p.curvature)) * (both * both * reciprocal);
  const bool right = (s.z_of_branch >= 0) != (p.inverse_sharpness < 0);
  set_r_and_k(to, right, (s.x - p.u0) * k, k, s.e, s.log1p, s.numerator, reciprocal, -to.gradient, -gl);
  to.sums[2] = gx, to.sums[3] = to.gradient;
  return to;
}

// The gradient to parameter `index` of (r, k, u0, t0) from its sum over the feature.
LED_HOST_DEVICE inline double parameter_gradient(int index, double sum, double r, double k) {
  return index == 0 ? sum / k : index == 1 ? sum * (1 - r) / (k * k) : sum;
}

}  // namespace led::soft_relu
