// The backward pass of both directions on the GPU: a block has a slice of one feature's elements, a few each thread,
// goes through the steps once for dy/dx and once for the gradients, and leaves the slice's sums.
#pragma once
#include "staircase/device.h"

namespace led::staircase {

constexpr int kSliceThreads = 128, kPerThread = kSliceSize / kSliceThreads, kSliceWarps = kSliceThreads / 32;
constexpr int kStepsTogether = 16;  // their sums are in shared memory at a time

template <typename T, bool kInverse>
__global__ void __launch_bounds__(kSliceThreads)
    backward_kernel(const T* x, const T* grad_value, const accumulate_t<T>* grad_log_abs_det, T* grad_x,
                    double* workspace, Problem<accumulate_t<T>> p, int64_t slices) {
  using Real = accumulate_t<T>;
  __shared__ Real sums[kSliceWarps][3 * kStepsTogether];
  __shared__ Real scratch[kSliceWarps];
  const int64_t feature = blockIdx.x / slices, slice = blockIdx.x % slices, count = p.samples * p.inner;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const Real m = p.slope[feature];
  Real at[kPerThread], g[kPerThread], h[kPerThread], out[kPerThread], derivative[kPerThread], curvature[kPerThread];
#pragma unroll
  for (int j = 0; j < kPerThread; ++j) {
    const int64_t i = slice * kSliceSize + j * kSliceThreads + threadIdx.x;
    at[j] = g[j] = h[j] = curvature[j] = 0;
    derivative[j] = m;
    if (i < count) {
      const int64_t offset = p.offset_of(feature, i);
      at[j] = static_cast<Real>(x[offset]);
      if (grad_value) g[j] = static_cast<Real>(grad_value[offset]);
      if (grad_log_abs_det) h[j] = grad_log_abs_det[i / p.inner];
    }
  }
  for (int64_t k = 0; k < p.steps; ++k) {
    const Step<Real> step = p.step(feature, k);
#pragma unroll
    for (int j = 0; j < kPerThread; ++j) {
      const auto t = terms_of(at[j], step);
      derivative[j] += step.weight * t.slope;
      if constexpr (kInverse) curvature[j] += step.weight * step.twice_steepness * t.value * t.slope;
    }
  }
  Real of_slope = 0;
#pragma unroll
  for (int j = 0; j < kPerThread; ++j) {
    h[j] = (kInverse ? -h[j] : h[j]) / derivative[j];
    if constexpr (kInverse) g[j] = (h[j] * curvature[j] - g[j]) / derivative[j];
    out[j] = m * g[j];
    of_slope += (g[j] == 0 ? Real(0) : at[j] * g[j]) + h[j];
  }
  double* const target = workspace + (feature * slices + slice) * sums_of_steps(p.steps);
  for (int64_t first = 0; first < p.steps; first += kStepsTogether) {
    const int64_t together = min(int64_t(kStepsTogether), p.steps - first);
    for (int64_t k = 0; k < together; ++k) {
      const Step<Real> step = p.step(feature, first + k);
      Real height = 0, steepness = 0, center = 0;
#pragma unroll
      for (int j = 0; j < kPerThread; ++j) {
        const auto t = terms_of(at[j], step);
        const Real q = pull(t.value, t.slope, g[j], h[j], step);
        const auto s = step_sums(at[j], t.value, t.slope, g[j], h[j], q, step);
        out[j] += step.weight * q;
        height += s.height;
        steepness += s.steepness;
        center += s.center;
      }
      height = warp_sum(height);
      steepness = warp_sum(steepness);
      center = warp_sum(center);
      if (lane == 0) {
        sums[warp][3 * k] = height;
        sums[warp][3 * k + 1] = steepness;
        sums[warp][3 * k + 2] = center;
      }
    }
    __syncthreads();
    if (threadIdx.x < 3 * together) {
      double sum = 0;
      for (int w = 0; w < kSliceWarps; ++w) sum += sums[w][threadIdx.x];
      target[3 * first + threadIdx.x] = sum;
    }
    __syncthreads();
  }
  of_slope = block_sum<kSliceThreads>(of_slope, scratch);
  if (threadIdx.x == 0) target[3 * p.steps] = of_slope;
#pragma unroll
  for (int j = 0; j < kPerThread; ++j) {
    const int64_t i = slice * kSliceSize + j * kSliceThreads + threadIdx.x;
    if (i < count) grad_x[p.offset_of(feature, i)] = T(kInverse ? -g[j] : out[j]);
  }
}

// One warp for each sum of each feature: adds its slices in order, and turns it into a parameter's gradient.
template <typename Real>
__global__ void __launch_bounds__(kThreads)
    sum_slices_kernel(const double* workspace, Real* grad_centers, Real* grad_heights, Real* grad_steepness,
                      Real* grad_slope, Problem<Real> p, int64_t slices) {
  const int64_t size = sums_of_steps(p.steps), index = int64_t(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  const int64_t feature = index / size, which = index % size, i = feature * p.steps + which / 3;
  if (feature >= p.features) return;  // the whole warp
  double sum = 0;
  for (int64_t slice = threadIdx.x % 32; slice < slices; slice += 32)
    sum += workspace[(feature * slices + slice) * size + which];
  sum = warp_sum(sum);
  if (threadIdx.x % 32 > 0) return;
  if (which == 3 * p.steps) grad_slope[feature] = Real(sum);
  else if (which % 3 == 0) grad_heights[i] = Real(sum);
  else if (which % 3 == 1) grad_steepness[i] = Real(p.heights[i] * sum);
  else grad_centers[i] = Real(-double(p.heights[i]) * p.steepness[i] * sum);
}

}  // namespace led::staircase
