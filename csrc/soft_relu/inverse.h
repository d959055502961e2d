// The inverse of soft-ReLU: x from y = L(x), in a fixed number of steps.
//
// In units of the bend, z = k (x - u0) and w = k (y + t0), one equation is left, whose left side N is increasing:
//   N(z) = r z + (1 - r) log(1 + e^z) = w
// and convex, because r <= 1: otherwise the mirror image is solved. Below z and w are in units of log 2, so that e^z is
// a power of two.
//
// Start: the least of three tangents, z <= w / r, z <= w and that at 0, which N lies above. But with small r, N is
// nearly exponential left of 0: there e^z = e^s - 1 with s = (w - r z) / (1 - r), for which r log((1 - r) / r) stands
// well enough for -r z. Either start is off by 1 at most, for any r and w. Steps: of third order, h + h^2 q / 2 + ...
// with Newton's step h and q = N'' / N'. The first leaves 0.01, so that polynomials of second degree are good enough
// for it; the second leaves 3e-8, a third less than float64 resolves. The includer supplies, besides what math.h needs,
// rough_log2(x) of a float, off by 0.05, rough_exp2_negative_abs(x), off by 0.2 %, and bounded_exp2_negative_abs(x),
// which need not take |x| > 126.
#pragma once
#include "soft_relu/math.h"

namespace led::soft_relu {

constexpr double kLog2 = 0.69314718055994530942;

template <class Real> struct InverseParameters {
  static constexpr int direction = -1;                         // log|det| is direction * Σ log L'
  static constexpr Real far = sizeof(Real) == 4 ? 125 : 1000;  // from |z| = far on, L is linear
  Real slope_ratio, inverse_ratio;                             // r, 1 / r
  Real rest, half_rest;                                        // (1 - r) in units of log 2, and half of it times log 2
  Real sharpness, inverse_sharpness;                           // w = sharpness (y + t0), x = inverse_sharpness z + u0
  Real tangent, tangent_at_0;                                  // 1 / N'(0), and where that tangent is when w = 0
  Real height, s_of_w, s_of_0, s_least;                        // N(0); s = w s_of_w + s_of_0, from s_least on
  Real right, left;                                            // L' (1 + e): right + left e for z >= 0, else reversed
  Real far_left;                                               // 1 / L'(-inf)
  Real curvature;                                              // L'' / L' = curvature e / (L' (1 + e)^2)
  Real sharpness_of_x;                                         // k
  Real u0, t0;
  int safe_factors;

  InverseParameters() = default;
  InverseParameters(double alpha, double beta, double u0, double t0)
      : InverseParameters(beta / alpha, alpha - beta, (alpha - beta) / alpha, u0, t0) {}
  LED_HOST_DEVICE InverseParameters(double ratio, double k, double other, double u0_, double t0_)  // other = 1 - ratio
      : u0(Real(u0_)), t0(Real(usable(ratio, k) ? t0_ : NAN)) {  // which no value and no sum survives
    // N's r is at most 1: the mirror image has z -> -z, w -> -w / r, 1 - r -> (1 - 1 / r).
    const bool mirrored = ratio > 1;
    const double r = mirrored ? 1 / ratio : ratio, bend = mirrored ? -other * r : other, odds = r / bend;
    slope_ratio = Real(r), inverse_ratio = Real(1 / r);
    rest = Real(bend / kLog2), half_rest = Real(bend * kLog2 / 2);
    sharpness = Real(mirrored ? -k * r / kLog2 : k / kLog2),
    inverse_sharpness = Real(mirrored ? -kLog2 / k : kLog2 / k);
    height = Real(bend), tangent = Real(2 / (1 + r)), tangent_at_0 = -height * tangent;
    s_of_w = Real(kLog2 / bend), s_of_0 = Real(-odds * std::log(odds)), s_least = Real(odds);
    right = mirrored ? Real(ratio) : Real(1), left = mirrored ? Real(1) : Real(ratio), far_left = Real(1 / ratio);
    curvature = Real(other * k), sharpness_of_x = Real(k);
    safe_factors = safe_factors_of<Real>(usable(ratio, k) ? ratio : 1);
  }

  static constexpr int kNumbers = 19;
  template <class Visit> LED_FUNCTION void each(Visit visit) {
    visit(slope_ratio), visit(inverse_ratio), visit(rest), visit(half_rest), visit(sharpness);
    visit(inverse_sharpness), visit(tangent), visit(tangent_at_0), visit(height), visit(s_of_w), visit(s_of_0);
    visit(s_least), visit(right), visit(left), visit(far_left), visit(curvature), visit(sharpness_of_x), visit(u0),
        visit(t0);
  }
};

// NaN where b is.
template <class Real> LED_FUNCTION Real minimum(Real a, Real b) { return a < b ? a : b; }

template <class Real> LED_FUNCTION Real inverse_start(Real w, const InverseParameters<Real>& p) {
  const Real tangent = minimum(minimum(w, w * p.inverse_ratio), w * p.tangent + p.tangent_at_0);
  const Real s = w * p.s_of_w + p.s_of_0;
  const Real exponential = Real(rough_log2(float(s * (1 + s * (Real(0.5) + s * Real(1.0 / 6))))));
  return (s >= p.s_least) & (w < p.height) ? exponential : tangent;
}

// What a step finds at z: e = e^{-|z|}, log(1 + e), e / (1 + e), and how much z is to be less.
template <class Real> struct Step {
  Real e, log1p, share, change;
};

template <bool kRough, class Real>
LED_FUNCTION Step<Real> inverse_step(Real z, Real w, const InverseParameters<Real>& p) {
  const Real e = kRough ? rough_exp2_negative_abs(z) : bounded_exp2_negative_abs(z), both = e + 1;
  const Real log1p = kRough ? e * (e * (e * Real(0.142518) - Real(0.444604)) + Real(0.997285)) : log1p_unit(e);
  const Real error = log1p * p.rest + (maximum(z, z * p.slope_ratio) - w), numerator = slope_numerator(z, e, p);
  const Real reciprocal = 1 / (both * numerator), e_reciprocal = e * reciprocal;
  const Real newton = error * both * (both * reciprocal), half = newton * e_reciprocal * p.half_rest;
  const Real rest_of_series = kRough ? half * half + half : half;
  return {e, log1p, e_reciprocal * numerator, newton + newton * (half * rest_of_series + half)};
}

// Where L(x) = y: x, e = e^{-|z|}, log(1 + e), and L' = numerator / (1 + e).
// Their branch is that of z before the last change, which may be on the other side of 0: then e exceeds 1.
template <class Real> struct Solution {
  Real x, e, log1p, numerator, z_of_branch;
};

template <class Real> LED_FUNCTION Solution<Real> solve(Real y, const InverseParameters<Real>& p) {
  constexpr Real far = InverseParameters<Real>::far;
  const Real v = y + p.t0, w_any = v * p.sharpness;
  const Real w = maximum(-far * p.slope_ratio, minimum(far, w_any));
  Real z = inverse_start(w, p);
  z -= inverse_step<true>(z, w, p).change;
  if constexpr (sizeof(Real) == 8) z -= inverse_step<false>(z, w, p).change;
  const Step<Real> last = inverse_step<false>(z, w, p);
  // e and log1p move with z by their series.
  const Real growth = z >= 0 ? last.change : -last.change;
  const Real relative = growth * (growth * Real(kLog2 * kLog2 / 2) + Real(kLog2)), log_growth = last.share * relative;
  const Real e = last.e * relative + last.e;
  const Real log1p = last.log1p + (log_growth - log_growth * log_growth * Real(0.5));
  const Real x = w == w_any ? (z - last.change) * p.inverse_sharpness : (v >= 0 ? v : v * p.far_left);
  return {x + p.u0, e, log1p, z >= 0 ? e * p.left + p.right : e * p.right + p.left, z};
}

// x, and L'(x) as in forward_terms of math.h.
template <class Real> LED_FUNCTION ForwardTerms<Real> forward_terms(Real y, const InverseParameters<Real>& p) {
  const Solution<Real> s = solve(y, p);
  return {s.x, s.numerator, s.log1p};
}

// dx/dy = 1 / L' and d(-log L')/dy = -(L'' / L') / L'.
template <class Real> LED_FUNCTION Slopes<Real> backward_terms(Real y, const InverseParameters<Real>& p) {
  const Solution<Real> s = solve(y, p);
  const Real reciprocal = 1 / s.numerator;
  return {(s.e + 1) * reciprocal, -(s.e * reciprocal * p.curvature) * reciprocal};
}

}  // namespace led::soft_relu
