// Loads and stores with cache hints, bit operations, and the device functions that no host header declares.
#pragma once
#include <math.h>

#include <algorithm>
#include <cmath>

#include "simt/warp.h"

using std::max;
using std::min;

#define SIMT_LOAD(name) \
  template <typename T> inline T name(const T* address) { return *address; }
SIMT_LOAD(__ldg)
SIMT_LOAD(__ldca)
SIMT_LOAD(__ldcg)
SIMT_LOAD(__ldcs)
SIMT_LOAD(__ldlu)
SIMT_LOAD(__ldcv)
#undef SIMT_LOAD
#define SIMT_STORE(name) \
  template <typename T> inline void name(T* address, const std::common_type_t<T>& value) { *address = value; }
SIMT_STORE(__stwb)
SIMT_STORE(__stcg)
SIMT_STORE(__stcs)
SIMT_STORE(__stwt)
#undef SIMT_STORE

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
inline unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int bit = 0; bit < 32; bit++) reversed |= (x >> bit & 1u) << (31 - bit);
  return reversed;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }

inline int __float_as_int(float x) { return (int)simt::to_bits(x); }
inline float __int_as_float(int x) { return simt::from_bits<float>((unsigned)x); }
inline unsigned __float_as_uint(float x) { return (unsigned)simt::to_bits(x); }
inline float __uint_as_float(unsigned x) { return simt::from_bits<float>(x); }
inline long long __double_as_longlong(double x) { return (long long)simt::to_bits(x); }
inline double __longlong_as_double(long long x) { return simt::from_bits<double>((uint64_t)x); }

inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline void __sincosf(float x, float* sine, float* cosine) { *sine = sinf(x), *cosine = cosf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __saturatef(float x) { return min(1.0f, max(0.0f, x)); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }

// sin(πx), cos(πx) with the argument reduced exactly, as CUDA does.
inline void sincospi(double x, double* sine, double* cosine) {
  const double r = remainder(x, 2.0);  // in [-1, 1]
  *sine = sin(M_PI * r);
  *cosine = cos(M_PI * r);
  if (fabs(r) == 0.5) *cosine = 0.0;
  if (r == 0.0 || fabs(r) == 1.0) *sine = 0.0;
}
inline double sinpi(double x) {
  double sine, cosine;
  sincospi(x, &sine, &cosine);
  return sine;
}
inline double cospi(double x) {
  double sine, cosine;
  sincospi(x, &sine, &cosine);
  return cosine;
}
inline float sinpif(float x) { return (float)sinpi(x); }
inline float cospif(float x) { return (float)cospi(x); }
inline void sincospif(float x, float* sine, float* cosine) { *sine = sinpif(x), *cosine = cospif(x); }
