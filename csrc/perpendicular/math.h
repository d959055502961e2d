// The perpendicular part of x against one direction u, for host and device (LED, Sec. 2.2):
//
//   x_perp = x - a u,   a = <u, x> / <u, u>,   ||x_perp|| = min over a of ||x - a u||
//
// ||x||^2 - <u, x>^2 / <u, u> would lose all digits where x is nearly parallel to u. Instead every block of a sample
// takes its own best coefficient, sums the squares of what is left, and blocks are merged by Pythagoras:
//   ||x - a u||^2 = Σ_blocks ||x - a_b u||^2 + (a - a_b)^2 ||u||^2
// All terms are positive, so ||x_perp|| is accurate to a few rounding errors of ||x||, also where it is nearly 0: for
// the u that is given, whose own error is its maker's.
#pragma once
#include <cstdint>

#ifndef LED_FUNCTION
#define LED_FUNCTION inline __attribute__((always_inline))
#endif

namespace led::perpendicular {

// Sums over some elements of a sample: <u, x>, <u, u> and ||x - a u||^2 with a = coefficient(ux, uu).
struct Moments {
  double ux, uu, residual;
};

// u = 0 has no direction: then x is perpendicular as it stands.
LED_FUNCTION double coefficient(double ux, double uu) { return uu > 0 ? ux / uu : 0; }

// The moments of two disjoint blocks together.
LED_FUNCTION Moments merge(const Moments& l, const Moments& r) {
  const double ux = l.ux + r.ux, uu = l.uu + r.uu, a = coefficient(ux, uu);
  const double left = a - coefficient(l.ux, l.uu), right = a - coefficient(r.ux, r.uu);
  return {ux, uu, l.residual + r.residual + left * left * l.uu + right * right * r.uu};
}

}  // namespace led::perpendicular
