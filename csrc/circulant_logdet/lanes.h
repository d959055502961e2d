// SIMD vectors whose lanes are frequencies. The compiler splits them where registers are shorter.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "common/multiversion.h"

namespace led::circulant_logdet {

// Vectors of kBytes bytes: what the kernels are templates of.
template <class T, int kBytes> struct Simd {
  using Real = T;
  using Integer = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
  static constexpr int bytes = kBytes, lanes = kBytes / sizeof(T);
  typedef T Vec __attribute__((vector_size(kBytes)));
  typedef Integer Mask __attribute__((vector_size(kBytes)));  // -1 or 0 a lane, or an index
};
template <class S> using Real = typename S::Real;
template <class S> using Vec = typename S::Vec;
template <class S> using Mask = typename S::Mask;

// Wide vectors fill the registers of AVX-512; narrow ones those of AVX2, and two of anything shorter.
constexpr int kWideBytes = 64, kNarrowBytes = 32;
using WideFloat = Simd<float, kWideBytes>;
using WideDouble = Simd<double, kWideBytes>;
using NarrowFloat = Simd<float, kNarrowBytes>;
using NarrowDouble = Simd<double, kNarrowBytes>;
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__)
#define LED_WIDE __attribute__((target("arch=x86-64-v4")))
#define LED_NARROW __attribute__((target_clones("arch=x86-64-v3", "default")))
inline bool has_wide_registers() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("x86-64-v4");
}
#else
#define LED_WIDE
#define LED_NARROW
inline bool has_wide_registers() { return false; }  // nor, for the tests, does a sanitized build
#endif

template <class S> LED_INLINE Vec<S> load(const Real<S>* p) {
  Vec<S> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <class S> LED_INLINE void store(Real<S>* p, Vec<S> v) { std::memcpy(p, &v, sizeof v); }

// The first lane whose mask is set, or the number of lanes.
template <class S> LED_INLINE int first_lane(Mask<S> mask) {
  typedef int8_t Bytes __attribute__((vector_size(S::lanes)));
  const Bytes bytes = __builtin_convertvector(mask, Bytes);
  uint64_t halves[2] = {};
  std::memcpy(halves, &bytes, sizeof bytes);
  if (halves[0]) return __builtin_ctzll(halves[0]) / 8;
  if (halves[1]) return 8 + __builtin_ctzll(halves[1]) / 8;
  return S::lanes;
}

}  // namespace led::circulant_logdet
