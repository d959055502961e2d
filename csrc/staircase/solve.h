// How one element's equation y = m x + Σ_k a_k tanh(b_k (x - c_k)) is solved for x, on CPU and GPU alike.
//
// Places where the staircase bends bracket the solution and give the start: between two of them it is nearly a cubic.
// From there on Halley's steps, which have F'' for two multiplications more, and bisection where they leave the bracket
// or do not shrink. All cease when the next step is known: its error is of third order in x, of second in log dy/dx.
#pragma once
#include <cmath>

#include "staircase/math.h"

namespace led::staircase {

// Places of one step, as b |x - c|, on both its sides. Those of a NaN are at infinity, because they must have an order.
constexpr int kPlaces = 6;
template <class Real> LED_FUNCTION Real place_of(int i, Real center, Real steepness) {
  const Real distance = (i % 3 == 0 ? Real(0.6) : i % 3 == 1 ? Real(1.5) : Real(3)) / steepness;
  const Real place = i < 3 ? center - distance : center + distance;
  return place == place ? place : Real(INFINITY);
}

// What holds for all elements of a feature.
template <class Real> struct Scale {
  Real slope;  // m
  Real reach;  // Σ a: y lies no farther from m x
  Real close;  // a distance in x over which no step bends
};

template <class Real> struct Precision;
template <> struct Precision<float> {
  static constexpr float eps = 0x1p-23f, root = 0x1.6ap-12f;
  static constexpr int most_steps = 80;
};
template <> struct Precision<double> {
  static constexpr double eps = 0x1p-52, root = 0x1p-26;
  static constexpr int most_steps = 140;
};

template <class Real> LED_FUNCTION Real magnitude(Real x) { return x < 0 ? -x : x; }

// The staircase at x: its value, derivative and minus its second derivative.
template <class Real> struct Local {
  Real value, derivative, curvature;
};

// Adds one step's part.
template <class Real> LED_FUNCTION void add_step(Local<Real>& at, Real x, const Step<Real>& step) {
  const auto t = terms_of(x, step);
  const Real slope = step.weight * t.slope;
  at.value += step.height * t.value;
  at.derivative += slope;
  at.curvature += slope * step.twice_steepness * t.value;
}

// The places next to the solution, and the staircase there; infinite where there is none.
template <class Real> struct Bracket {
  Real low, high, value_low, value_high;
};

// x, between low and high, and the size of the step that led there.
template <class Real> struct Search {
  Real x, low, high, moved;
};

// Linear between the places, and on the asymptotes beside the outermost. Infinity is where it is; so is a NaN.
template <class Real> LED_FUNCTION Search<Real> start(const Bracket<Real>& b, Real y, const Scale<Real>& scale) {
  const bool first = b.low - b.low != 0, last = b.high - b.high != 0;
  const Real low = first ? (y - scale.reach) / scale.slope : b.low;
  const Real high = last ? (y + scale.reach) / scale.slope : b.high;
  const Real below = first ? y - 2 * scale.reach : b.value_low, above = last ? y + 2 * scale.reach : b.value_high;
  const Real share = (y - below) / (above - below), x = low + (high - low) * (share < 1 ? share : Real(1));
  return {y - y == 0 ? x : y, low, high, high - low};
}

// x, or NaN where the derivative there is not finite, because a parameter is not.
template <class Real> LED_FUNCTION Real solution(Real x, Real derivative) { return x + (derivative - derivative); }

// Takes a step from where the staircase is `at`. Where it is the last one, returns true, and `derivative` is the one at
// the new x, which it does not round.
template <class Real>
LED_FUNCTION bool advance(Search<Real>& s, Real& derivative, Real y, const Local<Real>& at, const Scale<Real>& scale) {
  const Real eps = Precision<Real>::eps, residual = y - at.value, newton = residual / at.derivative;
  const Real bend = 1 - Real(0.5) * at.curvature * newton / at.derivative;
  const Real halley = newton / (bend < Real(0.5) ? Real(0.5) : bend > 2 ? Real(2) : bend);
  const Real least = eps * magnitude(s.x), close = least > scale.close ? least : scale.close;
  const bool far = magnitude(newton) > close, wrong = magnitude(residual) > 2 * eps * (magnitude(y) + scale.reach);
  // Where rounding of the value hides the solution, or at infinity, x stays.
  const Real last = far | (halley != halley) ? Real(0) : halley, slope = at.derivative - at.curvature * last;
  s.low = residual > 0 ? s.x : s.low;
  s.high = residual < 0 ? s.x : s.high;
  const Real next = s.x + halley;
  const bool fits = (next > s.low) & (next < s.high) & (magnitude(halley) < Real(0.5) * s.moved);
  const bool ends = !(far & wrong);
  derivative = slope < scale.slope ? scale.slope : slope;
  s.moved = fits ? magnitude(halley) : s.high - s.low;
  s.x = ends ? s.x + last : fits ? next : Real(0.5) * s.low + Real(0.5) * s.high;
  return ends;
}

}  // namespace led::staircase
