// Elementary functions and half-precision conversions as branch-free scalar formulas that vectorise on the CPU.
// A few ulp; NaN in, NaN out.
#pragma once
#include <cstdint>
#include <cstring>
#include <limits>

#include "common/logarithms.h"
#include "common/multiversion.h"

namespace led {

template <class To, class From> LED_INLINE To bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

template <class Real> struct Format;
template <> struct Format<float> {
  using Int = int32_t;
  static constexpr int mantissa_bits = 23, bias = 127;
  static constexpr float round_magic = 0x1.8p23f;  // adding it rounds to an integer, which is left in the lowest bits
};
template <> struct Format<double> {
  using Int = int64_t;
  static constexpr int mantissa_bits = 52, bias = 1023;
  static constexpr double round_magic = 0x1.8p52;
};

// ---- half precisions: storage types, widened to float where they are loaded ---------------------------------

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};
template <class T> struct Storage {
  using Real = T;
};  // the type a dtype is computed in
template <> struct Storage<Half> {
  using Real = float;
};
template <> struct Storage<BFloat16> {
  using Real = float;
};
template <class T> using RealOf = typename Storage<T>::Real;

LED_INLINE float load(float x) { return x; }
LED_INLINE double load(double x) { return x; }
LED_INLINE void store(float* p, float x) { *p = x; }
LED_INLINE void store(double* p, double x) { *p = x; }

LED_INLINE float load(BFloat16 x) { return bits<float>(uint32_t(x.bits) << 16); }
LED_INLINE void store(BFloat16* p, float x) {
  const uint32_t u = bits<uint32_t>(x), rounded = u + 0x7fff + ((u >> 16) & 1);  // to nearest, ties to even
  p->bits = uint16_t((x != x ? u | 0x400000 : rounded) >> 16);
}

LED_INLINE float load(Half x) {
  const uint32_t magnitude = uint32_t(x.bits & 0x7fff) << 13;
  const uint32_t finite =
      bits<uint32_t>(bits<float>(magnitude) * 0x1p112f);  // moves the bias; subnormals come out right
  const uint32_t special = magnitude | 0x7f800000;        // inf and NaN
  return bits<float>((magnitude >= 0x0f800000 ? special : finite) | uint32_t(x.bits & 0x8000) << 16);
}
LED_INLINE void store(Half* p, float x) {
  const uint32_t u = bits<uint32_t>(x), sign = (u >> 16) & 0x8000, magnitude = u & 0x7fffffff;
  const uint32_t normal = (magnitude - 0x38000000 + 0xfff + ((magnitude >> 13) & 1)) >> 13;
  const uint32_t subnormal =
      bits<uint32_t>(bits<float>(magnitude) + 0.5f) - 0x3f000000;  // the addition rounds at 2^-24
  const uint32_t special = magnitude > 0x7f800000 ? 0x7e00 : 0x7c00;
  p->bits = uint16_t(sign | (magnitude >= 0x477ff000 ? special : magnitude < 0x38800000 ? subnormal : normal));
}

// ---- elementary functions -----------------------------------------------------------------------------------

template <class Real> LED_INLINE Real maximum(Real a, Real b) { return a > b ? a : b; }

// 2^f - 1 for |f| <= 1/2, to full relative accuracy.
LED_INLINE float exp2m1_fraction(float f) {
  float p = 1.5453163e-4f;  // Chebyshev interpolation of (2^f - 1) / f, off by 9e-9
  p = p * f + 1.3390863e-3f;
  p = p * f + 9.6180830e-3f;
  p = p * f + 5.5503570e-2f;
  p = p * f + 2.4022651e-1f;
  p = p * f + 6.9314718e-1f;
  return p * f;
}
LED_INLINE double exp2m1_fraction(double f) {
  const double r = f * 0.69314718055994530942;
  double p = 1.0 / 6227020800.0;  // Taylor's series of e^r to r^13
  p = p * r + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * r + 1.0;
  return p * r;
}
// 2^f for |f| <= 1/2.
template <class Real> LED_INLINE Real exp2_fraction(Real f) { return exp2m1_fraction(f) + 1; }

// fraction(f) 2^-n, from |x| = n - f with an integer n < Format::bias and |f| <= 1/2.
template <class Real, class Fraction> LED_INLINE Real exp2_negative_abs_by(Real negative, Fraction fraction) {
  using F = Format<Real>;
  using Int = typename F::Int;
  const Real shifted = negative + F::round_magic, f = negative - (shifted - F::round_magic);
  return bits<Real>(Int(bits<Int>(fraction(f)) + (uint64_t(bits<Int>(shifted)) << F::mantissa_bits)));
}

template <class Real> LED_INLINE Real negative_abs(Real x) {
  using Int = typename Format<Real>::Int;
  return bits<Real>(bits<Int>(x) | bits<Int>(Real(-0.0)));
}

// 2^-|x| for |x| < Format::bias.
template <class Real> LED_INLINE Real bounded_exp2_negative_abs(Real x) {
  return exp2_negative_abs_by(negative_abs(x), [](Real f) __attribute__((always_inline)) { return exp2_fraction(f); });
}

// The same, off by 0.2 %.
template <class Real> LED_INLINE Real rough_exp2_negative_abs(Real x) {
  return exp2_negative_abs_by(negative_abs(x), [](Real f) __attribute__((always_inline)) {
    return (f * Real(0.237830) + Real(0.703397)) * f + Real(1.000514);
  });
}

// 2^-|x|. Flushes to the smallest normal number instead of to zero, so that no subnormals arise.
template <class Real> LED_INLINE Real exp2_negative_abs(Real x) {
  return bounded_exp2_negative_abs(maximum(Real(1 - Format<Real>::bias), negative_abs(x)));
}

// 2^x for x <= 0; 0 where it is so small, 2^-101 in float32, that products with it would be subnormal, and slow.
template <class Real> LED_INLINE Real exp2_or_zero(Real x) {
  const Real power = exp2_negative_abs_by(x, [](Real f) __attribute__((always_inline)) { return exp2_fraction(f); });
  return x < -Format<Real>::bias * 4 / 5 ? Real(0) : power;
}

// tanh(u) and 1 - tanh(u)^2, both to full relative accuracy; the latter is 0 below the normal numbers.
template <class Real> struct TanhTerms {
  Real value, slope;
};

// Of w = 2 u / log 2: with e = 2^-|w| and h = (e - 1) / 2, tanh|u| = -h / (1 + h) and 1 - tanh^2 = e / (1 + h)^2.
template <class Real> LED_INLINE TanhTerms<Real> tanh_terms(Real w) {
  using F = Format<Real>;
  using Int = typename F::Int;
  const Int sign = bits<Int>(w) & bits<Int>(Real(-0.0));
  Real x = bits<Real>(bits<Int>(w) | bits<Int>(Real(-0.0)));
  const bool flat = x < 1 - F::bias;
  x = flat ? Real(1 - F::bias) : x;
  const Real shifted = x + F::round_magic, part = exp2m1_fraction(x - (shifted - F::round_magic));
  const Real scale = bits<Real>(Int(bits<Int>(Real(1)) + (uint64_t(bits<Int>(shifted)) << F::mantissa_bits)));
  const Real half = scale * Real(0.5), h = half * part + (half - Real(0.5)), r = 1 / (1 + h);
  const Real slope = (scale * part + scale) * r * r;
  return {bits<Real>(Int(bits<Int>(-h * r) ^ sign)), flat ? Real(0) : slope};
}

// 2 artanh(s) for |s| <= 1/3, by its series to s^33.
LED_INLINE double two_artanh(double s) {
  const double z = s * s;
  double p = 2.0 / 33;
#pragma GCC unroll 16
  for (int k = 15; k >= 0; --k) p = p * z + 2.0 / (2 * k + 1);
  return p * s;
}

// log(1 + e) for 0 <= e <= 1; in float32, see logarithms.h.
LED_INLINE double log1p_unit(double e) { return two_artanh(e / (e + 2)); }

// x = mantissa 2^exponent with 1 <= mantissa < 2, for normal positive x. A NaN becomes a number.
template <class Real> LED_INLINE Real split_exponent(Real x, typename Format<Real>::Int* exponent) {
  using F = Format<Real>;
  using Int = typename F::Int;
  constexpr Int one = Int(F::bias) << F::mantissa_bits, mask = (Int(1) << F::mantissa_bits) - 1;
  const Int u = bits<Int>(x);
  *exponent = (u >> F::mantissa_bits) - F::bias;
  return bits<Real>(Int((u & mask) | one));
}

// log(x) for normal positive x.
LED_INLINE double log_normal(double x) {
  int64_t exponent;
  double m = split_exponent(x, &exponent);
  const bool upper = m > 1.4142135623730951;
  m = upper ? m * 0.5 : m;
  exponent = upper ? exponent + 1 : exponent;
  return double(exponent) * 0.69314718055994530942 + two_artanh((m - 1) / (m + 1)) + x * 0;  // x * 0 restores a NaN
}

LED_INLINE float log_normal(float x) {
  int32_t exponent;
  float m = split_exponent(x, &exponent);
  const bool upper = m > 1.41421356f;
  m = upper ? m * 0.5f : m;
  exponent = upper ? exponent + 1 : exponent;
  const float f = m - 1;
  float p = -7.9024824e-2f;  // Chebyshev interpolation of (log(1 + f) - f + f^2 / 2) / f^3, off by 2e-8
  p = p * f + 1.2622210e-1f;
  p = p * f - 1.2998213e-1f;
  p = p * f + 1.4214509e-1f;
  p = p * f - 1.6641281e-1f;
  p = p * f + 2.0001045e-1f;
  p = p * f - 2.5000306e-1f;
  p = p * f + 3.3333331e-1f;
  return float(exponent) * 0.69314718f + ((p * f - 0.5f) * f * f + f) + 0 * x;
}

// log(x) of any x but subnormal ones: -inf of 0, NaN of negative x.
template <class Real> LED_INLINE Real log_of(Real x) {
  const Real undefined = x == 0 ? -std::numeric_limits<Real>::infinity() : std::numeric_limits<Real>::quiet_NaN();
  return x > 0 ? log_normal(x) : undefined;
}

}  // namespace led
