// SIMD for CPU kernels without intrinsics: GCC/Clang vector types of one 512-bit register, which the compiler
// splits where the machine's registers are shorter, and elementary functions on them.
//
// A kernel marks its hot functions LED_MULTIVERSION: they are compiled once per instruction set and the loader
// picks the best one. Everything they call must be LED_INLINE, so that it is compiled into each version.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__)
// AddressSanitizer starts after the loader has run the resolvers, so its builds take one version.
#define LED_MULTIVERSION __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define LED_MULTIVERSION
#endif
#define LED_INLINE inline __attribute__((always_inline))

namespace led::simd {

// The name of the instruction set that LED_MULTIVERSION functions run with on this machine.
inline const char* instruction_set() {
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("x86-64-v4")) return "AVX-512 (x86-64-v4)";
  if (__builtin_cpu_supports("x86-64-v3")) return "AVX2 (x86-64-v3)";
#endif
  return "baseline";
}

template <class Real> struct Lanes;
template <> struct Lanes<float> {
  static constexpr int count = 16;
  typedef float Vec __attribute__((vector_size(64)));
  typedef int32_t Int __attribute__((vector_size(64)));
  static constexpr int mantissa_bits = 23, bias = 127;
};
template <> struct Lanes<double> {
  static constexpr int count = 8;
  typedef double Vec __attribute__((vector_size(64)));
  typedef int64_t Int __attribute__((vector_size(64)));
  static constexpr int mantissa_bits = 52, bias = 1023;
};
template <class Real> using Vec = typename Lanes<Real>::Vec;
template <class Real> using Int = typename Lanes<Real>::Int;

template <class Real> LED_INLINE Vec<Real> splat(Real value) { return value - Vec<Real>{}; }
template <class To, class From> LED_INLINE To bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

// ---- loads and stores; half precisions are widened to float -------------------------------------------------

template <class T> struct Storage { using Real = T; };        // the type that a dtype is computed in
struct Half { uint16_t bits; };
struct BFloat16 { uint16_t bits; };
template <> struct Storage<Half> { using Real = float; };
template <> struct Storage<BFloat16> { using Real = float; };

typedef uint16_t U16 __attribute__((vector_size(32)));
typedef uint32_t U32 __attribute__((vector_size(64)));

template <class T> LED_INLINE Vec<T> load(const T* p) {
  Vec<T> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <class T> LED_INLINE void store(T* p, Vec<T> v) { std::memcpy(p, &v, sizeof v); }

LED_INLINE U32 load_u16(const void* p) {
  U16 h;
  std::memcpy(&h, p, sizeof h);
  return __builtin_convertvector(h, U32);
}
LED_INLINE void store_u16(void* p, U32 v) {
  U16 h = __builtin_convertvector(v, U16);
  std::memcpy(p, &h, sizeof h);
}

LED_INLINE Vec<float> load(const BFloat16* p) { return bits<Vec<float>>(load_u16(p) << 16); }
LED_INLINE void store(BFloat16* p, Vec<float> v) {
  U32 u = bits<U32>(v);
  U32 rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;  // to nearest, ties to even
  store_u16(p, bits<U32>(v != v) ? (u >> 16) | 0x40 : rounded);
}

LED_INLINE Vec<float> load(const Half* p) {
  U32 h = load_u16(p);
  U32 magnitude = (h & 0x7fff) << 13;
  U32 scaled = bits<U32>(bits<Vec<float>>(magnitude) * 0x1p112f);  // moves the exponent's bias; subnormals come out right
  U32 special = magnitude | 0x7f800000;                           // inf and NaN
  return bits<Vec<float>>((magnitude >= 0x0f800000 ? special : scaled) | ((h & 0x8000) << 16));
}
LED_INLINE void store(Half* p, Vec<float> v) {
  U32 u = bits<U32>(v), sign = (u >> 16) & 0x8000, magnitude = u & 0x7fffffff;
  U32 normal = (magnitude - 0x38000000 + 0xfff + ((magnitude >> 13) & 1)) >> 13;
  U32 subnormal = bits<U32>(bits<Vec<float>>(magnitude) + 0.5f) - 0x3f000000;  // the addition rounds at 2^-24
  U32 special = magnitude > 0x7f800000 ? U32{} + 0x7e00 : U32{} + 0x7c00;
  U32 h = magnitude >= 0x477ff000 ? special : magnitude < 0x38800000 ? subnormal : normal;
  store_u16(p, h | sign);
}

// ---- elementary functions: a few ulp, NaN in NaN out --------------------------------------------------------

template <class V> LED_INLINE V abs(V x) { return x < 0 ? -x : x; }

// exp(x) for x <= 0. Flushes to the smallest normal number instead of to zero, so that no subnormals arise.
LED_INLINE Vec<float> exp_nonpositive(Vec<float> x) {
  x = x < -87.3f ? splat(-87.3f) : x;
  Vec<float> shifted = x * 1.44269504088896341f + 0x1.8p23f;  // adding 1.5 * 2^23 rounds to an integer
  Vec<float> n = shifted - 0x1.8p23f;
  Vec<float> r = (x - n * 0x1.62e400p-1f) - n * 0x1.7f7d1cp-20f;  // ln 2 in two parts
  Vec<float> p = splat(1.9841270e-4f);
  p = p * r + 1.3888889e-3f;
  p = p * r + 8.3333333e-3f;
  p = p * r + 4.1666668e-2f;
  p = p * r + 1.6666667e-1f;
  p = p * r + 0.5f;
  p = p * r * r + r + 1.0f;
  Int<float> exponent = (bits<Int<float>>(shifted) - bits<Int<float>>(splat(0x1.8p23f)) + 127) << 23;
  return p * bits<Vec<float>>(exponent);
}
LED_INLINE Vec<double> exp_nonpositive(Vec<double> x) {
  x = x < -708.0 ? splat(-708.0) : x;
  Vec<double> shifted = x * 1.44269504088896340736 + 0x1.8p52;
  Vec<double> n = shifted - 0x1.8p52;
  Vec<double> r = (x - n * 0x1.62e42fefa3800p-1) - n * 0x1.ef35793c76730p-45;
  Vec<double> p = splat(1.0 / 6227020800.0);  // Taylor to r^13: |r| <= ln(2)/2
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
  p = p * r * r + r + 1.0;
  Int<double> exponent = (bits<Int<double>>(shifted) - bits<Int<double>>(splat(0x1.8p52)) + 1023) << 52;
  return p * bits<Vec<double>>(exponent);
}

// 2 artanh(s) for |s| <= 1/3: the series s + s^3/3 + s^5/5 + … , to half an ulp of the type.
template <class V> LED_INLINE V two_artanh(V s) {
  using Real = std::remove_cv_t<std::remove_reference_t<decltype(s[0])>>;
  constexpr int terms = sizeof(Real) == 4 ? 8 : 17;
  V z = s * s, p = V{} + Real(1.0 / (2 * terms - 1));
#pragma GCC unroll 17
  for (int k = terms - 2; k >= 1; --k) p = p * z + Real(1.0 / (2 * k + 1));
  return 2 * (s + s * z * p);
}

// log(1 + e) for 0 <= e <= 1.
template <class V> LED_INLINE V log1p_unit(V e) { return two_artanh(e / (e + 2)); }

// A product of many factors in (0, 1], kept as mantissa and exponent so that it never underflows: its logarithm
// costs one log a lane however many factors there are. The factors of one `absorb` must multiply to a normal number.
template <class Real> struct LogProduct {
  Vec<Real> mantissa = splat(Real(1)), nan = Vec<Real>{};
  Int<Real> exponent = {};

  LED_INLINE void absorb(Vec<Real> product) {
    using L = Lanes<Real>;
    nan += product * 0;  // the exponent split below would lose a NaN
    mantissa *= product;
    Int<Real> u = bits<Int<Real>>(mantissa);
    exponent += (u >> L::mantissa_bits) - L::bias;
    constexpr auto one = decltype(u[0] + 0)(L::bias) << L::mantissa_bits;
    constexpr auto mask = (decltype(u[0] + 0)(1) << L::mantissa_bits) - 1;
    mantissa = bits<Vec<Real>>((u & mask) | one);
  }
  // log of each lane's product.
  LED_INLINE Vec<Real> log() const {
    auto upper = mantissa > Real(1.4142135623730951);
    Vec<Real> m = upper ? mantissa * Real(0.5) : mantissa;
    Vec<Real> n = __builtin_convertvector(upper ? exponent + 1 : exponent, Vec<Real>);
    return n * Real(0.69314718055994530942) + two_artanh((m - 1) / (m + 1)) + nan;
  }
};

}  // namespace led::simd
