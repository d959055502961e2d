// SIMD vectors of one 512-bit register (the compiler splits them where registers are shorter): a lane is a frequency.
#pragma once
#include <cstdint>
#include <cstring>

#include "common/multiversion.h"

namespace led::circulant_logdet {

template <class Real> struct Lanes;
template <> struct Lanes<float> {
  static constexpr int count = 16;
  typedef float Vec __attribute__((vector_size(64)));
  typedef int32_t Mask __attribute__((vector_size(64)));
};
template <> struct Lanes<double> {
  static constexpr int count = 8;
  typedef double Vec __attribute__((vector_size(64)));
  typedef int64_t Mask __attribute__((vector_size(64)));
};
template <class Real> using Vec = typename Lanes<Real>::Vec;
template <class Real> using Mask = typename Lanes<Real>::Mask;  // -1 or 0 a lane, or an index

template <class Real> LED_INLINE Vec<Real> load(const Real* p) {
  Vec<Real> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <class Real> LED_INLINE void store(Real* p, Vec<Real> v) { std::memcpy(p, &v, sizeof v); }

// The first lane whose mask is set, or the number of lanes.
LED_INLINE int first_lane(Mask<float> mask) {
  typedef int8_t Bytes __attribute__((vector_size(16)));
  const Bytes bytes = __builtin_convertvector(mask, Bytes);
  uint64_t half[2];
  std::memcpy(half, &bytes, sizeof half);
  return half[0] ? __builtin_ctzll(half[0]) / 8 : half[1] ? 8 + __builtin_ctzll(half[1]) / 8 : 16;
}
LED_INLINE int first_lane(Mask<double> mask) {
  typedef int8_t Bytes __attribute__((vector_size(8)));
  const Bytes bytes = __builtin_convertvector(mask, Bytes);
  uint64_t all;
  std::memcpy(&all, &bytes, sizeof all);
  return all ? __builtin_ctzll(all) / 8 : 8;
}

}  // namespace led::circulant_logdet
