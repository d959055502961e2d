// The monotone staircase of one feature, y = m x + Σ_k a_k t_k with t_k = tanh(b_k (x - c_k)), and its derivatives.
//
// With s_k = 1 - t_k^2:
//   dy/dx = m + Σ a b s =: D        dD/dx = -Σ 2 a b^2 t s
// For cotangents gy of y and g of Σ log D, and h = g / D, q = s (gy - 2 b h t), w = x - c:
//   to x: m gy + Σ a b q    to m: Σ x gy + h    to a: Σ t gy + b s h    to b: Σ a (w q + s h)    to c: -Σ a b q
// Written once for CPU and CUDA: the includer supplies tanh_terms(2 u / log 2).
#pragma once

#ifndef LED_FUNCTION
#define LED_FUNCTION inline __attribute__((always_inline))
#endif

namespace led::staircase {

// One step and the products of its parameters that every element takes.
template <class Real> struct Step {
  Real center, rate;                     // c, 2 b / log 2
  Real height, weight, twice_steepness;  // a, a b, 2 b

  LED_FUNCTION Step(Real center_, Real height_, Real steepness)
      : center(center_),
        rate(steepness * Real(2.88539008177792681472)),
        height(height_),
        weight(height_ * steepness),
        twice_steepness(2 * steepness) {}
  LED_FUNCTION Step() {}
};

template <class Real> LED_FUNCTION auto terms_of(Real x, const Step<Real>& step) {
  return tanh_terms((x - step.center) * step.rate);
}

// q, from which most gradients follow.
template <class Real> LED_FUNCTION Real pull(Real t, Real s, Real gy, Real h, const Step<Real>& step) {
  return s * (gy - step.twice_steepness * h * t);
}

// Sums over elements from which the gradients of one step's parameters follow: to a, Σ w q + s h, Σ q.
template <class Real> struct StepSums {
  Real height, steepness, center;
};

template <class Real>
LED_FUNCTION StepSums<Real> step_sums(Real x, Real t, Real s, Real gy, Real h, Real q, const Step<Real>& step) {
  const Real far = (x - step.center) * q;  // where the step is flat it is 0, also for an infinite x
  return {t * gy + Real(0.5) * step.twice_steepness * s * h, (q == 0 ? Real(0) : far) + s * h, q};
}

}  // namespace led::staircase
