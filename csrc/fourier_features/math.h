// Sine and cosine of a phase, both from one reduction: phase = n π/2 + r with |r| <= π/4, up to rounding, polynomials
// of r² for sin(r) and cos(r), and their exchange and signs by n modulo 4. Off by less than eps, beside zeros too; NaN
// of NaN and of infinities.
//
// With g the cotangent of [x, sin(x P), cos(x P)] and q = g_sin cos - g_cos sin, that of x is g_x + q Pᵀ.
#pragma once
#include <cstdint>
#include <cstring>

#include "common/everywhere.h"

namespace led::fourier_features {

// round_magic: adding it rounds to an integer, which is left in the lowest bits. part1 + part2 + part3 = π/2, of which
// the first two have so few bits that their products with n are exact for all phases within reach (Cody and Waite).
template <class Real> struct Constants;
template <> struct Constants<float> {
  using Int = int32_t;
  using Bits = uint32_t;
  static constexpr int mantissa_bits = 23, bias = 127;
  static constexpr float round_magic = 0x1.8p23f, reach = 0x1p15f;
  static constexpr float part1 = 0x1.92p0f, part2 = 0x1.fbp-12f, part3 = 0x1.5110b4p-22f;
};
template <> struct Constants<double> {
  using Int = int64_t;
  using Bits = uint64_t;
  static constexpr int mantissa_bits = 52, bias = 1023;
  static constexpr double round_magic = 0x1.8p52, reach = 0x1p20;
  static constexpr double part1 = 0x1.921fb544p0, part2 = 0x1.0b4611a6p-34, part3 = 0x1.3198a2e037073p-69;
};

template <class To, class From> LED_EVERYWHERE To as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

// Minimax polynomials in z = r²: (sin(r) / r - 1) / z, off by 4e-9 and 4e-18, and (cos(r) - 1) / z, by 6e-11 and 4e-20.
LED_EVERYWHERE float sine_series(float z) { return (-1.95172713e-4f * z + 8.33217856e-3f) * z - 1.6666655e-1f; }
LED_EVERYWHERE float cosine_series(float z) {
  return ((2.43904678e-5f * z - 1.3886765e-3f) * z + 4.16666234e-2f) * z - 4.99999997e-1f;
}
LED_EVERYWHERE double sine_series(double z) {
  double p = 1.58968594680639781e-10;
  p = p * z - 2.50507596774292992e-8;
  p = p * z + 2.75573137057132979e-6;
  p = p * z - 1.98412698298627017e-4;
  p = p * z + 8.33333333332251057e-3;
  return p * z - 1.66666666666666326e-1;
}
LED_EVERYWHERE double cosine_series(double z) {
  double p = -1.13545493877761157e-11;
  p = p * z + 2.08756096044908685e-9;
  p = p * z - 2.75573133506061096e-7;
  p = p * z + 2.48015872850723851e-5;
  p = p * z - 1.38888888888640823e-3;
  p = p * z + 4.16666666666664904e-2;
  return p * z - 4.99999999999999996e-1;
}

template <class Real> struct SineCosine {
  Real sine, cosine;
};

// Of r + n π/2. All in bits, because compilers would make branches of what depends on n.
template <class Real> LED_EVERYWHERE SineCosine<Real> of_reduced(Real r, typename Constants<Real>::Bits n) {
  using Bits = typename Constants<Real>::Bits;
  const Real z = r * r;
  const Bits s = as<Bits>(sine_series(z) * (z * r) + r), c = as<Bits>(cosine_series(z) * z + 1);
  const Bits exchange = (s ^ c) & (Bits(0) - (n & 1)), sign = as<Bits>(Real(-0.0));
  constexpr int to_sign = sizeof(Real) * 8 - 2;  // of bit 1
  return {as<Real>(Bits(s ^ exchange ^ (n << to_sign & sign))),
          as<Real>(Bits(c ^ exchange ^ ((n + 1) << to_sign & sign)))};
}

template <class Real> LED_EVERYWHERE bool within_reach(Real phase) {
  return phase <= Constants<Real>::reach && phase >= -Constants<Real>::reach;
}

// For phases within reach.
template <class Real> LED_EVERYWHERE SineCosine<Real> sine_cosine_within_reach(Real phase) {
  using C = Constants<Real>;
  const Real shifted = phase * Real(0.63661977236758134308) + C::round_magic, n = shifted - C::round_magic;
  const Real r = ((phase - n * C::part1) - n * C::part2) - n * C::part3;
  return of_reduced(r, as<typename C::Bits>(shifted));
}

// For the others: |phase| = m 2^e times the 128 bits of 2/π that matter modulo 4 and to 64 bits (Payne and Hanek).
template <class Real> LED_EVERYWHERE SineCosine<Real> sine_cosine_beyond_reach(Real phase) {
  using C = Constants<Real>;
  using Bits = typename C::Bits;
  static constexpr uint64_t two_over_pi[] = {
      0,  // for bits before the point
      0xa2f9836e4e441529,
      0xfc2757d1f534ddc0,
      0xdb6295993c439041,
      0xfe5163abdebbc561,
      0xb7246e3a424dd2e0,
      0x06492eea09d1921c,
      0xfe1deb1cb129a73e,
      0xe88235f52ebb4484,
      0xe99c7026b45f7e41,
      0x3991d639835339f4,
      0x9c845f8bbdf9283b,
      0x1ff897ffde05980f,
      0xef2f118b5a0a6d1f,
      0x6d367ecf27cb09b7,
      0x4f463f669e5fea2d,
      0x7527bac7ebe5f17b,
      0x3d0739f78a5292ea,
      0x6bfb5fb11f8d5d08,
      0x56033046fc7b6bab,
  };
  constexpr Bits one = Bits(1) << C::mantissa_bits;
  const Bits u = as<Bits>(phase), mantissa = (u & (one - 1)) | one;
  const int exponent = int((u >> C::mantissa_bits) & (2 * C::bias + 1));
  // From the bit of 2/π that is worth 2 beside 2^e on.
  const int from = exponent - C::bias - C::mantissa_bits + 62;
  const uint64_t* const word = two_over_pi + from / 64;
  const int shift = from % 64;
  const auto bits_from = [&](int i) { return shift ? word[i] << shift | word[i + 1] >> (64 - shift) : word[i]; };
  // The product modulo 4 in units of 2^-62.
  const uint64_t turns = mantissa * bits_from(0) + uint64_t((unsigned __int128)(mantissa)*bits_from(1) >> 64);
  const int64_t fraction = int64_t(turns << 2);
  const Real r = Real(fraction) * Real(0x1.921fb54442d18p-64);
  const Bits n = Bits(turns >> 62) + (fraction < 0);
  const bool negative = u >> (sizeof(Real) * 8 - 1), finite = exponent <= 2 * C::bias;
  return of_reduced(finite ? (negative ? -r : r) : phase * 0, negative ? Bits(0) - n : n);
}

}  // namespace led::fourier_features
