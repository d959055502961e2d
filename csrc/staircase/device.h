// What the staircase's CUDA kernels share: elementary functions, the layout, sums over a sample.
#pragma once
#include "common/dispatch.cuh"
#include "common/gpu.h"
#include "common/rows.cuh"
#include "staircase/launch.h"

#define LED_FUNCTION __host__ __device__ __forceinline__

namespace led::staircase {

template <typename Real> struct TanhTerms {
  Real value, slope;
};

__device__ __forceinline__ float expm1_of(float x) { return expm1f(x); }
__device__ __forceinline__ double expm1_of(double x) { return expm1(x); }
__device__ __forceinline__ float exp_of(float x) { return expf(x); }
__device__ __forceinline__ double exp_of(double x) { return exp(x); }
__device__ __forceinline__ float log_of(float x) { return logf(x); }
__device__ __forceinline__ double log_of(double x) { return log(x); }

// tanh(u) and 1 - tanh(u)^2 of 2 u / log 2, as in common/elementary.h: neither cancels.
template <typename Real> __device__ __forceinline__ TanhTerms<Real> tanh_terms(Real w) {
  const Real x = (w < 0 ? w : -w) * Real(0.69314718055994530942);
  const Real h = Real(0.5) * expm1_of(x), r = 1 / (1 + h), value = -h * r;
  return {w < 0 ? -value : value, exp_of(x) * r * r};
}

}  // namespace led::staircase
#include "staircase/solve.h"

namespace led::staircase {

constexpr int64_t kWarpSample = 512;  // up to so many elements a sample, threads of one warp do it alone
constexpr int kMostElements = 4;      // of a thread, then: at least 70 % of the threads have one at any time

// Where a feature's elements lie, and all parameters.
template <typename Real> struct Problem {
  const Real *centers, *heights, *steepness, *slope;
  int64_t samples, features, inner, steps;
  bool interleaved;

  LED_FUNCTION int64_t sample_size() const { return features * inner; }
  LED_FUNCTION int64_t feature_of(int64_t i) const { return interleaved ? i % features : i / inner; }
  // Of element number i of a feature, over all samples.
  LED_FUNCTION int64_t offset_of(int64_t feature, int64_t i) const {
    const int64_t sample = i / inner, position = i % inner;
    return sample * sample_size() + (interleaved ? position * features + feature : feature * inner + position);
  }
  __device__ __forceinline__ Step<Real> step(int64_t feature, int64_t k) const {
    const int64_t i = feature * steps + k;
    return {__ldg(centers + i), __ldg(heights + i), __ldg(steepness + i)};
  }
};

}  // namespace led::staircase
