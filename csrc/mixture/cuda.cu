// The mixture's log density on the GPU. Forward, a warp has a sample, and its lanes the components; backward, a warp
// has a component and a slice of the samples. All sums are taken in a fixed order.
#include "common/dispatch.cuh"
#include "common/gpu.h"
#include "common/rows.cuh"
#include "mixture/launch.h"
#include "mixture/math.h"

namespace led::mixture {
namespace {

constexpr int kWarps = kThreads / 32;     // of a block
constexpr int kPerLane = kTogether / 32;  // components or samples that a lane has at once

__device__ __forceinline__ float exp_of(float x) { return expf(x); }
__device__ __forceinline__ double exp_of(double x) { return exp(x); }
__device__ __forceinline__ float exp2_of(float x) { return exp2_flushed(x); }
__device__ __forceinline__ double exp2_of(double x) { return exp2(x); }
__device__ __forceinline__ float log_of(float x) { return logf(x); }
__device__ __forceinline__ double log_of(double x) { return log(x); }

// Finite, so that -inf less it is no NaN.
template <typename Real> constexpr Real kLowest = Real(-3.0e38);
template <> constexpr double kLowest<double> = -1.0e308;

template <typename Real> struct Problem {
  const Real *means, *log_scales, *log_weights;
  Real* table;
  int64_t samples, dimension, components, stride;  // stride: of the table, components filled up

  __device__ __forceinline__ const Real* mean(int64_t k) const { return table + k; }
  __device__ __forceinline__ const Real* rate(int64_t k) const { return table + dimension * stride + k; }
  __device__ __forceinline__ const Real* weight(int64_t k) const { return table + 2 * dimension * stride + k; }
};

// The largest value in the warp, in every lane, NaN aside.
template <typename Real> __device__ __forceinline__ Real warp_largest(Real value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) {
    const Real other = __shfl_xor_sync(kFullMask, value, offset);
    value = other > value ? other : value;
  }
  return value;
}

// One thread a component.
template <typename Real> __global__ void __launch_bounds__(kThreads) table_kernel(Problem<Real> p) {
  const int64_t k = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (k >= p.stride) return;
  const int64_t from = min(k, p.components - 1);
  Real log = 0;
  for (int64_t d = 0; d < p.dimension; ++d) {
    const Real log_scale = p.log_scales[from * p.dimension + d];
    p.table[d * p.stride + k] = p.means[from * p.dimension + d];
    p.table[(p.dimension + d) * p.stride + k] = Real(kRate) * exp_of(-log_scale);
    log += log_scale;
  }
  const Real weight = Real(kLog2E) * (p.log_weights[from] - log - Real(kHalfLog2Pi) * Real(p.dimension));
  p.table[2 * p.dimension * p.stride + k] = k < p.components ? weight : -Real(INFINITY);
}

// score and shares are null where kKeep is false. Without the 3 blocks, ptxas saves registers until it spills.
template <typename T, bool kKeep>
__global__ void __launch_bounds__(kThreads, 3)
    forward_kernel(const T* x, accumulate_t<T>* log_prob, accumulate_t<T>* score, accumulate_t<T>* shares,
                   Problem<accumulate_t<T>> p) {
  using Real = accumulate_t<T>;
  const int64_t sample = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (sample >= p.samples) return;  // the whole warp
  const T* const at = x + sample * p.dimension;
  Real* const pulls = score + sample * p.dimension;
  Real top = kLowest<Real>, sum = 0;
  for (int64_t first = 0; first < p.stride; first += kTogether) {
    const Real *mean = p.mean(first + lane), *rate = p.rate(first + lane), *const weight = p.weight(first + lane);
    Real power[kPerLane] = {};
    for (int64_t d = 0; d < p.dimension; ++d, mean += p.stride, rate += p.stride) {
      const Real value = static_cast<Real>(at[d]);
#pragma unroll
      for (int j = 0; j < kPerLane; ++j) {
        const Real u = (value - __ldg(mean + 32 * j)) * __ldg(rate + 32 * j);
        power[j] += u * u;
      }
    }
    Real largest = top;
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      power[j] = __ldg(weight + 32 * j) - power[j];
      largest = power[j] > largest ? power[j] : largest;
    }
    largest = warp_largest(largest);
    const Real scale = exp2_of(top - largest);
    top = largest;
    sum *= scale;
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      power[j] = exp2_of(power[j] - top);
      sum += power[j];
    }
    if constexpr (kKeep) {
      mean = p.mean(first + lane), rate = p.rate(first + lane);
      for (int64_t d = 0; d < p.dimension; ++d, mean += p.stride, rate += p.stride) {
        const Real value = static_cast<Real>(at[d]);
        Real pull = 0;
#pragma unroll
        for (int j = 0; j < kPerLane; ++j) {
          const Real rho = __ldg(rate + 32 * j);
          pull += power[j] * rho * ((__ldg(mean + 32 * j) - value) * rho);  // no square of rho, which may overflow
        }
        pull = warp_sum(pull);
        if (d % 32 == lane) pulls[d] = first == 0 ? pull : pulls[d] * scale + pull;
      }
    }
  }
  sum = warp_sum(sum);
  if (lane == 0) log_prob[sample] = Real(kLog2) * top + log_of(sum);
  if constexpr (kKeep) {
    const Real share = sum == 0 ? Real(0) : 1 / sum;  // where there is no density, no component has a share
    for (int64_t d = lane; d < p.dimension; d += 32)
      pulls[d] = share == 0 ? Real(0) : Real(2 * kLog2) * share * pulls[d];
    if (lane == 0) {
      shares[sample] = top;
      shares[p.samples + sample] = share;
    }
  }
}

// Σ g r, and of every coordinate Σ g r u and Σ g r u², to workspace[slice][sum][component].
template <typename T>
__global__ void __launch_bounds__(kThreads, 3)
    backward_kernel(const accumulate_t<T>* grad, const T* x, const accumulate_t<T>* shares, accumulate_t<T>* workspace,
                    Problem<accumulate_t<T>> p, int64_t slices, int64_t slice_size) {
  using Real = accumulate_t<T>;
  const int64_t warp = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32, k = warp / slices, slice = warp % slices;
  const int lane = threadIdx.x % 32;
  if (k >= p.components) return;  // the whole warp
  const int64_t begin = slice * slice_size, end = min(begin + slice_size, p.samples);
  const Real weight = *p.weight(k);
  Real* const sums = workspace + slice * table_size(p.components, p.dimension) + k;
  for (int64_t first = begin; first < end; first += kTogether) {
    const auto add = [&](int64_t which, Real sum) {
      sum = warp_sum(sum);
      Real* const target = sums + which * p.stride;
      if (which % 32 == lane) *target = first == begin ? sum : *target + sum;
    };
    const T* const at = x + first * p.dimension;
    const int count = int(min(kTogether, end - first));
    int64_t offset[kPerLane];
    Real r[kPerLane] = {};
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) offset[j] = min(32 * j + lane, count - 1) * p.dimension;
    const Real *mean = p.mean(k), *rate = p.rate(k);
    for (int64_t d = 0; d < p.dimension; ++d, mean += p.stride, rate += p.stride) {
      const Real mu = __ldg(mean), rho = __ldg(rate);
#pragma unroll
      for (int j = 0; j < kPerLane; ++j) {
        const Real u = (static_cast<Real>(at[offset[j] + d]) - mu) * rho;
        r[j] += u * u;
      }
    }
    Real sum = 0;
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      const int64_t i = first + 32 * j + lane;
      r[j] = i < end ? grad[i] * shares[p.samples + i] * exp2_of(weight - r[j] - shares[i]) : Real(0);
      sum += r[j];
    }
    add(0, sum);
    mean = p.mean(k), rate = p.rate(k);
    for (int64_t d = 0; d < p.dimension; ++d, mean += p.stride, rate += p.stride) {
      const Real mu = __ldg(mean), rho = __ldg(rate);
      Real of_mean = 0, of_scale = 0;
#pragma unroll
      for (int j = 0; j < kPerLane; ++j) {
        // Where u has overflowed there is no density.
        const Real u = r[j] == 0 ? Real(0) : (static_cast<Real>(at[offset[j] + d]) - mu) * rho;
        of_mean += r[j] * u;
        of_scale += r[j] * u * u;
      }
      add(1 + 2 * d, of_mean);
      add(2 + 2 * d, of_scale);
    }
  }
}

// One thread for each component's weight and for each of its coordinates: adds the slices in order.
template <typename Real>
__global__ void __launch_bounds__(kThreads)
    sum_slices_kernel(const Real* workspace, Real* grad_means, Real* grad_log_scales, Real* grad_log_weights,
                      Problem<Real> p, int64_t slices) {
  const int64_t index = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t k = index % p.components, d = index / p.components;
  if (d > p.dimension) return;
  const auto total = [&](int64_t which) {
    double sum = 0;
    for (int64_t slice = 0; slice < slices; ++slice)
      sum += workspace[slice * table_size(p.components, p.dimension) + which * p.stride + k];
    return sum;
  };
  const double of_weight = total(0);
  if (d == p.dimension) {
    grad_log_weights[k] = Real(of_weight);
  } else {
    grad_means[k * p.dimension + d] = Real(2 * kLog2 * p.rate(k)[d * p.stride] * total(1 + 2 * d));
    grad_log_scales[k * p.dimension + d] = Real(2 * kLog2 * total(2 + 2 * d) - of_weight);
  }
}

template <typename Real>
Problem<Real> problem_of(const void* means, const void* log_scales, const void* log_weights, void* table,
                         int64_t samples, int64_t dimension, int64_t components) {
  const auto real = [](const void* pointer) { return static_cast<const Real*>(pointer); };
  return {real(means), real(log_scales), real(log_weights), static_cast<Real*>(table),
          samples,     dimension,        components,        filled_up(components)};
}

template <typename Real> cudaError_t make_table(const Problem<Real>& p, cudaStream_t stream) {
  return GPU_LAUNCH((table_kernel<Real>), blocks_for(p.stride, kThreads), kThreads, 0, stream, p);
}

}  // namespace
}  // namespace led::mixture

using namespace led;
using namespace led::mixture;

extern "C" cudaError_t led_fast_mixture_log_prob(const void* x, void* log_prob, void* score, void* shares, void* table,
                                                 const void* means, const void* log_scales, const void* log_weights,
                                                 int64_t samples, int64_t dimension, int64_t components, int dtype,
                                                 cudaStream_t stream) {
  if (samples == 0) return cudaSuccess;
  return dispatch(dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    using Real = accumulate_t<T>;
    const auto p = problem_of<Real>(means, log_scales, log_weights, table, samples, dimension, components);
    const cudaError_t error = make_table(p, stream);
    if (error != cudaSuccess) return error;
    const auto launch = [&](auto kernel) {
      return GPU_LAUNCH(kernel, blocks_for(samples, kWarps), kThreads, 0, stream, static_cast<const T*>(x),
                        static_cast<Real*>(log_prob), static_cast<Real*>(score), static_cast<Real*>(shares), p);
    };
    return shares ? launch(forward_kernel<T, true>) : launch(forward_kernel<T, false>);
  });
}

extern "C" cudaError_t led_fast_mixture_log_prob_backward(const void* grad_log_prob, const void* x, const void* shares,
                                                          void* grad_means, void* grad_log_scales,
                                                          void* grad_log_weights, void* table, void* workspace,
                                                          const void* means, const void* log_scales,
                                                          const void* log_weights, int64_t samples, int64_t dimension,
                                                          int64_t components, int dtype, cudaStream_t stream) {
  if (samples == 0) return cudaSuccess;
  return dispatch(dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    using Real = accumulate_t<T>;
    const auto p = problem_of<Real>(means, log_scales, log_weights, table, samples, dimension, components);
    const int64_t slices = slices_of(samples), slice_size = (samples + slices - 1) / slices;
    cudaError_t error = make_table(p, stream);
    if (error != cudaSuccess) return error;
    error = GPU_LAUNCH((backward_kernel<T>), blocks_for(components * slices, kWarps), kThreads, 0, stream,
                       static_cast<const Real*>(grad_log_prob), static_cast<const T*>(x),
                       static_cast<const Real*>(shares), static_cast<Real*>(workspace), p, slices, slice_size);
    if (error != cudaSuccess) return error;
    return GPU_LAUNCH((sum_slices_kernel<Real>), blocks_for(components * (dimension + 1), kThreads), kThreads, 0,
                      stream, static_cast<const Real*>(workspace), static_cast<Real*>(grad_means),
                      static_cast<Real*>(grad_log_scales), static_cast<Real*>(grad_log_weights), p, slices);
  });
}
