// ||x - û ûᵀ x|| on the GPU. A block takes the moments of a piece of a sample, whose elements stay in registers between
// the sums and the residual; a second kernel merges the pieces of each sample in order, so that every run gives the
// same bits. For few channels of x, u = conv_transpose(t, weight) is made on the fly, a pixel a thread.
#include "common/dispatch.cuh"
#include "common/gpu.h"
#include "common/reduce.cuh"
#include "perpendicular/launch.h"

#define LED_FUNCTION __host__ __device__ __forceinline__
#include "perpendicular/math.h"

namespace led::perpendicular {
namespace {

// The moments of a block's elements, kPerThread a thread (zeros where there are none), in thread 0. All threads call.
template <int kPerThread, typename T>
__device__ __forceinline__ Moments block_moments(const T (&x)[kPerThread], const T (&u)[kPerThread]) {
  __shared__ double scratch[3][kThreads / 32];
  __shared__ double shared_coefficient;
  double ux = 0, uu = 0, residual = 0;
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    ux += double(u[i]) * double(x[i]);
    uu += double(u[i]) * double(u[i]);
  }
  ux = block_sum<kThreads>(ux, scratch[0]);
  uu = block_sum<kThreads>(uu, scratch[1]);
  if (threadIdx.x == 0) shared_coefficient = coefficient(ux, uu);
  __syncthreads();
  const T a = T(shared_coefficient);
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    const T rest = x[i] - a * u[i];
    residual += double(rest) * double(rest);
  }
  return {ux, uu, block_sum<kThreads>(residual, scratch[2])};
}

__device__ __forceinline__ void store(double* workspace, int64_t piece, const Moments& m) {
  workspace[3 * piece] = m.ux;
  workspace[3 * piece + 1] = m.uu;
  workspace[3 * piece + 2] = m.residual;
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    measure_kernel(const T* x, const T* u, double* workspace, int64_t size, unsigned pieces) {
  constexpr int kPerThread = kPiece / kThreads;
  const int64_t sample = blockIdx.x / pieces, first = blockIdx.x % pieces * kPiece + threadIdx.x;
  T xs[kPerThread], us[kPerThread];
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    const int64_t at = first + i * kThreads;
    xs[i] = at < size ? x[sample * size + at] : T(0);
    us[i] = at < size ? u[sample * size + at] : T(0);
  }
  const Moments m = block_moments(xs, us);
  if (threadIdx.x == 0) store(workspace, blockIdx.x, m);
}

// One warp a sample.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    merge_kernel(const double* workspace, T* norm, T* coefficients, int64_t samples, int64_t pieces) {
  const int64_t sample = int64_t(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  if (sample >= samples) return;  // the whole warp
  Moments total{};
  for (int64_t i = threadIdx.x % 32; i < pieces; i += 32) {
    const double* m = workspace + 3 * (sample * pieces + i);
    total = merge(total, {m[0], m[1], m[2]});
  }
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1)
    total = merge(total, {__shfl_xor_sync(kFullMask, total.ux, offset), __shfl_xor_sync(kFullMask, total.uu, offset),
                          __shfl_xor_sync(kFullMask, total.residual, offset)});
  if (threadIdx.x % 32 == 0) {
    norm[sample] = T(sqrt(total.residual));
    coefficients[sample] = T(coefficient(total.ux, total.uu));
  }
}

// One axis of the convolution. The taps that reach pixel y from some cell are first_tap(y), + step, + 2 step, ...
struct Axis {
  int size, cells, kernel, stride, padding, dilation, step;  // step = stride / gcd(stride, dilation)

  __device__ __forceinline__ int first_tap(int y) const {
    for (int tap = 0; tap < step; ++tap)
      if ((y + padding - tap * dilation) % stride == 0) return tap;
    return kernel;
  }
};

template <typename T> struct Problem {
  const T *x, *weight, *t;
  T* u;
  double* workspace;
  unsigned groups, pieces;  // pieces: of one group of a sample
  int outs, outs_at_once;   // so many of them have their weights in shared memory at a time
  Axis vertical, horizontal;
};

template <typename T, int kChannels> __global__ void __launch_bounds__(kThreads) transpose_kernel(Problem<T> p) {
  GPU_DYNAMIC_SHARED(T, weights);  // [outs_at_once][kChannels][taps]
  const Axis v = p.vertical, h = p.horizontal;
  const unsigned of_group = blockIdx.x / p.pieces, group = of_group % p.groups;
  const unsigned pixels = unsigned(v.size) * h.size, cells = unsigned(v.cells) * h.cells;
  const unsigned pixel = blockIdx.x % p.pieces * kThreads + threadIdx.x;
  const bool exists = pixel < pixels;
  const int y = int(pixel / h.size), x = int(pixel % h.size);
  const int taps = v.kernel * h.kernel;
  const int first_ky = v.first_tap(y), first_kx = h.first_tap(x);
  T u[kChannels] = {};
  for (int first = 0; first < p.outs; first += p.outs_at_once) {
    const int outs = min(p.outs_at_once, p.outs - first);
    const T* from = p.weight + (int64_t(group) * p.outs + first) * (kChannels * taps);
    if (first > 0) __syncthreads();
    for (int i = threadIdx.x; i < outs * kChannels * taps; i += kThreads) weights[i] = from[i];
    __syncthreads();
    if (!exists) continue;
    const T* t = p.t + (int64_t(of_group) * p.outs + first) * cells;
    for (int ky = first_ky; ky < v.kernel; ky += v.step) {
      const int i = (y + v.padding - ky * v.dilation) / v.stride;
      if (y + v.padding < ky * v.dilation || i >= v.cells) continue;
      for (int kx = first_kx; kx < h.kernel; kx += h.step) {
        const int j = (x + h.padding - kx * h.dilation) / h.stride;
        if (x + h.padding < kx * h.dilation || j >= h.cells) continue;
        const T* cell = t + i * h.cells + j;
        const T* weight = weights + ky * h.kernel + kx;
        for (int o = 0; o < outs; ++o, cell += cells, weight += kChannels * taps)
#pragma unroll
          for (int c = 0; c < kChannels; ++c) u[c] += *cell * weight[c * taps];
      }
    }
  }
  T xs[kChannels] = {};
  if (exists) {
    const int64_t offset = int64_t(of_group) * kChannels * pixels + pixel;
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      xs[c] = p.x[offset + c * int64_t(pixels)];
      if (p.u) p.u[offset + c * int64_t(pixels)] = u[c];
    }
  }
  const Moments m = block_moments(xs, u);
  if (threadIdx.x == 0) store(p.workspace, blockIdx.x, m);
}

int step_of(int stride, int dilation) {
  int a = stride, b = dilation;
  while (b) {
    const int rest = a % b;
    a = b;
    b = rest;
  }
  return stride / a;
}

bool fits_grid(int64_t blocks) { return blocks <= 0x7fffffff; }

template <typename T>
cudaError_t merge_pieces(const double* workspace, void* norm, void* coefficients, int64_t samples, int64_t pieces,
                         cudaStream_t stream) {
  const unsigned blocks = unsigned((samples + kThreads / 32 - 1) / (kThreads / 32));
  return GPU_LAUNCH(merge_kernel<T>, blocks, kThreads, 0, stream, workspace, static_cast<T*>(norm),
                    static_cast<T*>(coefficients), samples, pieces);
}

template <typename T>
cudaError_t measure(const void* x, const void* u, double* workspace, int64_t samples, int64_t size,
                    cudaStream_t stream) {
  const int64_t pieces = pieces_to(size);
  return GPU_LAUNCH(measure_kernel<T>, unsigned(samples * pieces), kThreads, 0, stream, static_cast<const T*>(x),
                    static_cast<const T*>(u), workspace, size, unsigned(pieces));
}

template <typename T>
cudaError_t transpose(const Problem<T>& p, int channels, int64_t samples, int shared_weights, cudaStream_t stream) {
  const unsigned blocks = unsigned(samples * p.groups * p.pieces);
  const size_t bytes = size_t(shared_weights) * sizeof(T);
  switch (channels) {
    case 1: return GPU_LAUNCH((transpose_kernel<T, 1>), blocks, kThreads, bytes, stream, p);
    case 2: return GPU_LAUNCH((transpose_kernel<T, 2>), blocks, kThreads, bytes, stream, p);
    case 3: return GPU_LAUNCH((transpose_kernel<T, 3>), blocks, kThreads, bytes, stream, p);
    case 4: return GPU_LAUNCH((transpose_kernel<T, 4>), blocks, kThreads, bytes, stream, p);
    default: return cudaErrorInvalidValue;
  }
}

}  // namespace
}  // namespace led::perpendicular

using namespace led;
using namespace led::perpendicular;

extern "C" cudaError_t led_fast_perpendicular_norm_to(const void* x, const void* u, double* workspace, void* norm,
                                                      void* coefficient, int64_t samples, int64_t size, int dtype,
                                                      cudaStream_t stream) {
  const int64_t pieces = pieces_to(size);
  if (samples == 0) return cudaSuccess;
  if (!fits_grid(samples * pieces)) return cudaErrorInvalidValue;
  return dispatch_real(dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const cudaError_t error = pieces == 0 ? cudaSuccess : measure<T>(x, u, workspace, samples, size, stream);
    return error != cudaSuccess ? error : merge_pieces<T>(workspace, norm, coefficient, samples, pieces, stream);
  });
}

extern "C" cudaError_t led_fast_perpendicular_norm(const void* x, const void* weight, const void* t, double* workspace,
                                                   void* norm, void* coefficient, void* u, int64_t samples,
                                                   int64_t groups, int channels, int outs, int height, int width,
                                                   int out_height, int out_width, int kernel_h, int kernel_w,
                                                   int stride_h, int stride_w, int padding_h, int padding_w,
                                                   int dilation_h, int dilation_w, int dtype, cudaStream_t stream) {
  if (samples == 0) return cudaSuccess;
  const int64_t all_pieces = pieces_of(int64_t(height) * width, groups);
  const int weights = channels * kernel_h * kernel_w;
  if (int64_t(height) * width > 0x7fffffff - kThreads || int64_t(out_height) * out_width > 0x7fffffff)
    return cudaErrorInvalidValue;
  if (weights > kMaxWeights || !fits_grid(samples * all_pieces)) return cudaErrorInvalidValue;
  const int at_once = outs < kMaxWeights / weights ? outs : kMaxWeights / weights;
  return dispatch_real(dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const Problem<T> p{static_cast<const T*>(x),
                       static_cast<const T*>(weight),
                       static_cast<const T*>(t),
                       static_cast<T*>(u),
                       workspace,
                       unsigned(groups),
                       unsigned(all_pieces / groups),
                       outs,
                       at_once,
                       {height, out_height, kernel_h, stride_h, padding_h, dilation_h, step_of(stride_h, dilation_h)},
                       {width, out_width, kernel_w, stride_w, padding_w, dilation_w, step_of(stride_w, dilation_w)}};
    const cudaError_t error = transpose(p, channels, samples, at_once * weights, stream);
    return error != cudaSuccess ? error : merge_pieces<T>(workspace, norm, coefficient, samples, all_pieces, stream);
  });
}
