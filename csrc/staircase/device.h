// What the staircase's CUDA kernels share: elementary functions, the layout, sums over a sample.
#pragma once
#include "common/dispatch.cuh"
#include "common/gpu.h"
#include "common/reduce.cuh"
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

constexpr int kThreads = 256;
constexpr int64_t kWarpSample = 512;  // up to so many elements a sample, a warp does it alone

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

// Elements [begin, end) of sample `sample` belong to the kGroup threads of which this is one.
template <int kGroup> struct Piece {
  int64_t sample, index, begin, end;

  __device__ Piece(int64_t sample_size, int64_t pieces) {
    const int64_t piece = int64_t(blockIdx.x) * (kThreads / kGroup) + threadIdx.x / kGroup;
    sample = piece / pieces;
    index = piece % pieces;
    begin = index * kPieceSize;
    end = pieces == 1 ? sample_size : min(begin + kPieceSize, sample_size);
  }

  // The group's sum, into log_abs_det where it is the sample's, else into the workspace.
  template <typename Real>
  __device__ __forceinline__ void leave(Real sum, Real* log_abs_det, double* workspace, int64_t samples,
                                        int64_t pieces) const {
    if constexpr (kGroup == 32) {
      sum = warp_sum(sum);
    } else {
      __shared__ Real scratch[kThreads / 32];
      sum = block_sum<kThreads>(sum, scratch);
    }
    if (threadIdx.x % kGroup == 0 && sample < samples) {
      if (pieces == 1) log_abs_det[sample] = sum;
      else workspace[sample * pieces + index] = sum;
    }
  }
};

// One warp a sample: adds its pieces in order.
template <typename Real>
__global__ void __launch_bounds__(kThreads)
    sum_pieces_kernel(const double* workspace, Real* log_abs_det, int64_t samples, int64_t pieces) {
  const int64_t sample = int64_t(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  if (sample >= samples) return;  // the whole warp
  double sum = 0;
  for (int64_t i = threadIdx.x % 32; i < pieces; i += 32) sum += workspace[sample * pieces + i];
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) log_abs_det[sample] = Real(sum);
}

inline unsigned blocks_for(int64_t groups, int group) {
  const int64_t per_block = kThreads / group;
  return unsigned((groups + per_block - 1) / per_block);
}

}  // namespace led::staircase
