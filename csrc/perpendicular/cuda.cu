// ||x - û ûᵀ x|| on the GPU. A block takes the moments of a piece of a sample, whose elements stay in registers between
// the sums and the residual; a second kernel merges the pieces of each sample in order, so that every run gives the
// same bits. For few channels of x, u = conv_transpose(t, weight) is made on the fly, some pixels of a column a thread.
#include <algorithm>
#include <numeric>

#include "common/dispatch.cuh"
#include "common/gpu.h"
#include "common/reduce.cuh"
#include "perpendicular/launch.h"

#define LED_FUNCTION __host__ __device__ __forceinline__
#include "perpendicular/math.h"

namespace led::perpendicular {
namespace {

// The moments of a block's elements, kPerThread a thread (zeros where there are none), in thread 0. All threads call.
template <int kBlock, int kPerThread, typename T>
__device__ __forceinline__ Moments block_moments(const T (&x)[kPerThread], const T (&u)[kPerThread]) {
  __shared__ double scratch[3][kBlock / 32];
  __shared__ double shared_coefficient;
  double ux = 0, uu = 0, residual = 0;
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    ux += double(u[i]) * double(x[i]);
    uu += double(u[i]) * double(u[i]);
  }
  ux = block_sum<kBlock>(ux, scratch[0]);
  uu = block_sum<kBlock>(uu, scratch[1]);
  if (threadIdx.x == 0) shared_coefficient = coefficient(ux, uu);
  __syncthreads();
  const T a = T(shared_coefficient);
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    const T rest = x[i] - a * u[i];
    residual += double(rest) * double(rest);
  }
  return {ux, uu, block_sum<kBlock>(residual, scratch[2])};
}

__device__ __forceinline__ void store(double* workspace, int64_t piece, const Moments& m) {
  workspace[3 * piece] = m.ux;
  workspace[3 * piece + 1] = m.uu;
  workspace[3 * piece + 2] = m.residual;
}

// N elements an access.
template <typename T, int N>
__global__ void __launch_bounds__(kThreads)
    measure_kernel(const T* x, const T* u, double* workspace, int64_t size, unsigned pieces) {
  constexpr int kPerThread = kPiece / kThreads;
  const int64_t sample = blockIdx.x / pieces, first = blockIdx.x % pieces * kPiece + threadIdx.x * N;
  T xs[kPerThread], us[kPerThread];
#pragma unroll
  for (int i = 0; i < kPerThread; i += N) {
    const int64_t at = first + i * kThreads;
    Pack<T, N> x_pack{}, u_pack{};
    if (at < size) {
      x_pack = *reinterpret_cast<const Pack<T, N>*>(x + sample * size + at);
      u_pack = *reinterpret_cast<const Pack<T, N>*>(u + sample * size + at);
    }
#pragma unroll
    for (int k = 0; k < N; ++k) {
      xs[i + k] = x_pack[k];
      us[i + k] = u_pack[k];
    }
  }
  const Moments m = block_moments<kThreads>(xs, us);
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

// One axis of the convolution. Pixel y meets cell i at a tap where y + padding = i stride + tap dilation. The taps that
// meet y in some cell are first_tap(y), + step, + 2 step, ...; from one to the next the cell falls by cell_step. A
// pixel further by `period` = step dilation = cell_step stride meets the same taps in cells further by cell_step.
struct Axis {
  int size, cells, kernel, stride, padding, dilation, step, cell_step;

  __device__ __forceinline__ int first_tap(int y) const {
    for (int tap = 0; tap < step && tap < kernel; ++tap)
      if ((y + padding - tap * dilation) % stride == 0) return tap;
    return kernel;
  }
  __device__ __forceinline__ int cell(int y, int tap) const { return (y + padding - tap * dilation) / stride; }
};

template <typename T> struct Problem {
  const T *x, *weight, *t;
  T* u;
  double* workspace;
  unsigned groups, pieces;  // pieces: of one group of a sample
  int outs, outs_at_once;   // so many of them have their weights in shared memory at a time
  int period;
  Axis vertical, horizontal;
};

// The weights of one tap lie together, because a thread wants all of them: [out][tap][kSlots].
template <int kChannels> constexpr int kSlots = kChannels == 3 ? 4 : kChannels;
template <typename T, int kChannels> struct TapWeights {
  static constexpr int kPacked = kSlots<kChannels> < kPackSize<T> ? kSlots<kChannels> : kPackSize<T>;
  static constexpr int kPacks = kSlots<kChannels> / kPacked;
  Pack<T, kPacked> packs[kPacks];
  __device__ __forceinline__ T& operator[](int c) { return packs[c / kPacked][c % kPacked]; }
  __device__ __forceinline__ T operator[](int c) const { return packs[c / kPacked][c % kPacked]; }
};

// Adds what kTaps taps bring to the pixels of a strip from all outs. The taps lie `tap_distance` apart, and pixel r
// meets cell kTaps - 1 + r - a of `column` at tap a. These cells lie `distance` bytes apart, those of the next out
// `cells` elements further; a bit of `inside` says whether a cell exists. With 32 bits, an address is one multiply-add.
template <int kTaps, typename T, int kChannels, int kPixels>
__device__ __forceinline__ void add_taps(T (&u)[kPixels][kChannels], const T* column, unsigned distance,
                                         unsigned inside, unsigned cells, const TapWeights<T, kChannels>* weights,
                                         int tap_distance, int taps, int outs) {
#pragma unroll 2  // the loads of two outs are under way at once
  for (int o = 0; o < outs; ++o, column += cells, weights += taps) {
    T t[kPixels + kTaps - 1];
    const char* cell = reinterpret_cast<const char*>(column);
#pragma unroll
    for (int i = 0; i < kPixels + kTaps - 1; ++i)
      t[i] = inside >> i & 1 ? *reinterpret_cast<const T*>(cell + uint64_t(distance) * i) : T(0);
#pragma unroll
    for (int a = 0; a < kTaps; ++a) {
      const TapWeights<T, kChannels> weight = weights[a * tap_distance];
#pragma unroll
      for (int r = 0; r < kPixels; ++r)
#pragma unroll
        for (int c = 0; c < kChannels; ++c) u[r][c] += t[kTaps - 1 + r - a] * weight[c];
    }
  }
}

// A thread takes a strip. Neighbours in a warp are neighbours in a row, so that their cells and pixels are, too.
// Without the 4 blocks, ptxas saves registers until it spills.
template <typename T, int kChannels>
__global__ void __launch_bounds__(kStripThreads, 4) transpose_kernel(Problem<T> p) {
  using Weights = TapWeights<T, kChannels>;
  constexpr int kPixels = kStrip<T>;
  GPU_DYNAMIC_SHARED(Weights, weights);  // [outs_at_once][taps]
  const Axis v = p.vertical, h = p.horizontal;
  const unsigned of_group = blockIdx.x / p.pieces, group = of_group % p.groups;
  const unsigned pixels = unsigned(v.size) * h.size, cells = unsigned(v.cells) * h.cells;
  const unsigned index = blockIdx.x % p.pieces * kStripThreads + threadIdx.x;
  const int x = int(index % h.size), phase = int(index / h.size % p.period);
  const int above = int(index / h.size / p.period) * kPixels;  // pixels of the same phase
  const int length = (v.size - phase - 1) / p.period + 1 - above;
  const int y = length > 0 ? phase + above * p.period : 0;
  const int taps = v.kernel * h.kernel;
  const int first_ky = v.first_tap(y), first_kx = h.first_tap(x);
  T u[kPixels][kChannels] = {};
  for (int first = 0; first < p.outs; first += p.outs_at_once) {
    const int outs = min(p.outs_at_once, p.outs - first);
    const T* from = p.weight + (int64_t(group) * p.outs + first) * (kChannels * taps);
    if (first > 0) __syncthreads();
    for (int i = threadIdx.x; i < outs * taps; i += kStripThreads) {
      Weights w{};
#pragma unroll
      for (int c = 0; c < kChannels; ++c) w[c] = from[i + (i / taps * (kChannels - 1) + c) * taps];
      weights[i] = w;
    }
    __syncthreads();
    if (length <= 0) continue;
    const T* t = p.t + (int64_t(of_group) * p.outs + first) * cells;
    for (int kx = first_kx; kx < h.kernel; kx += h.step) {
      const int j = h.cell(x, kx);
      if (j < 0 || j >= h.cells) continue;
      for (int ky = first_ky; ky < v.kernel; ky += 2 * v.step) {
        const bool two = ky + v.step < v.kernel;
        const int top = v.cell(y, two ? ky + v.step : ky);
        unsigned inside = 0;
#pragma unroll
        for (int i = 0; i <= kPixels; ++i) {
          const int64_t cell = top + i * int64_t(v.cell_step);
          inside |= unsigned(cell >= 0 && cell < v.cells) << i;
        }
        const unsigned distance = unsigned(v.cell_step) * h.cells * unsigned(sizeof(T));
        const auto add = [&](auto add_taps) {
          add_taps(u, t + int64_t(top) * h.cells + j, distance, inside, cells, weights + ky * h.kernel + kx,
                   v.step * h.kernel, taps, outs);
        };
        if (two) add(add_taps<2, T, kChannels, kPixels>);
        else add(add_taps<1, T, kChannels, kPixels>);
      }
    }
  }
  T xs[kPixels * kChannels] = {}, us[kPixels * kChannels] = {};
#pragma unroll
  for (int r = 0; r < kPixels; ++r) {
    if (r >= length) continue;
    const int64_t offset = int64_t(of_group) * kChannels * pixels + (y + r * p.period) * h.size + x;
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      const int64_t at = offset + c * int64_t(pixels);
      xs[r * kChannels + c] = p.x[at];
      us[r * kChannels + c] = u[r][c];
      if (p.u) p.u[at] = u[r][c];
    }
  }
  const Moments m = block_moments<kStripThreads>(xs, us);
  if (threadIdx.x == 0) store(p.workspace, blockIdx.x, m);
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
  const unsigned pieces = unsigned(pieces_to(size)), blocks = unsigned(samples * pieces);
  const T *x_data = static_cast<const T*>(x), *u_data = static_cast<const T*>(u);
  if (size % kPackSize<T> == 0 && aligned(x) && aligned(u))
    return GPU_LAUNCH((measure_kernel<T, kPackSize<T>>), blocks, kThreads, 0, stream, x_data, u_data, workspace, size,
                      pieces);
  return GPU_LAUNCH((measure_kernel<T, 1>), blocks, kThreads, 0, stream, x_data, u_data, workspace, size, pieces);
}

template <typename T, int kChannels> cudaError_t transpose(Problem<T> p, int64_t samples, cudaStream_t stream) {
  const int taps = p.vertical.kernel * p.horizontal.kernel;
  const int most = kMaxWeights / (kSlots<kChannels> * taps);
  p.outs_at_once = most < 1 ? 1 : most < p.outs ? most : p.outs;
  const size_t bytes = size_t(p.outs_at_once) * taps * sizeof(TapWeights<T, kChannels>);
  const unsigned blocks = unsigned(samples * p.groups * p.pieces);
  return GPU_LAUNCH((transpose_kernel<T, kChannels>), blocks, kStripThreads, bytes, stream, p);
}

template <typename T> cudaError_t transpose(const Problem<T>& p, int channels, int64_t samples, cudaStream_t stream) {
  switch (channels) {
    case 1: return transpose<T, 1>(p, samples, stream);
    case 2: return transpose<T, 2>(p, samples, stream);
    case 3: return transpose<T, 3>(p, samples, stream);
    case 4: return transpose<T, 4>(p, samples, stream);
    default: return cudaErrorInvalidValue;
  }
}

Axis axis_of(int size, int cells, int kernel, int stride, int padding, int dilation) {
  const int common = std::gcd(stride, dilation);
  const int step = std::min(stride / common, kernel),
            cell_step = std::min(dilation / common, cells);  // further is outside
  return {size, cells, kernel, stride, padding, dilation, step, cell_step};
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
  if (int64_t(height) * width > kMaxPixels || int64_t(out_height) * out_width > kMaxCells) return cudaErrorInvalidValue;
  return dispatch_real(dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const Strips strips = strips_of(height, width, stride_h, dilation_h, sizeof(T));
    const int64_t all_pieces = strips.pieces() * groups;
    if (channels * kernel_h * kernel_w > kMaxWeights || !fits_grid(samples * all_pieces)) return cudaErrorInvalidValue;
    const Problem<T> p{static_cast<const T*>(x),
                       static_cast<const T*>(weight),
                       static_cast<const T*>(t),
                       static_cast<T*>(u),
                       workspace,
                       unsigned(groups),
                       unsigned(strips.pieces()),
                       outs,
                       0,
                       int(strips.period),
                       axis_of(height, out_height, kernel_h, stride_h, padding_h, dilation_h),
                       axis_of(width, out_width, kernel_w, stride_w, padding_w, dilation_w)};
    const cudaError_t error = transpose(p, channels, samples, stream);
    return error != cudaSuccess ? error : merge_pieces<T>(workspace, norm, coefficient, samples, all_pieces, stream);
  });
}
