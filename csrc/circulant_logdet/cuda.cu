// The log-determinant of circular convolutions on the GPU. The symbol at a frequency is evaluated from the taps where
// it is eliminated: in the registers of a warp, a column a lane, or in the shared memory of a block. For the gradient,
// inverse symbols of a chunk of frequencies are kept in memory until a second kernel has folded them into taps. No
// atomics: every run gives the same bits.
#include "circulant_logdet/block.cuh"
#include "circulant_logdet/launch.h"
#include "circulant_logdet/warp.cuh"
#include "common/dispatch.cuh"

namespace led::circulant_logdet {
namespace {

constexpr int kBlockThreads = 256;           // of a block of fold_kernel
constexpr int kSlices = kBlockThreads / 32;  // warps that share the frequencies of a fold
constexpr int kFoldTaps = 5;                 // pairs of taps folded at a time: all of a 3 x 3 kernel's

// e^{iψ_t(f)}
template <typename Real> __device__ __forceinline__ Complex<Real> phase_of(Frequency f, int64_t t, const Shape& s) {
  const int64_t a = t / s.taps.columns, b = t % s.taps.columns;
  Complex<double> row, column;
  sincospi(double(half_turns(f.row, a, s.taps.rows, s.grid.rows)) / double(s.grid.rows), &row[1], &row[0]);
  sincospi(double(half_turns(f.column, b, s.taps.columns, s.grid.columns)) / double(s.grid.columns), &column[1],
           &column[0]);
  const Complex<double> phase = multiply(row, column);
  return {Real(phase[0]), Real(phase[1])};
}

// Sum and difference of tap t and its mirror, by which the cosine and the sine are multiplied.
template <typename Real>
__device__ __forceinline__ Complex<Real> fold_tap(const Real* taps, int64_t t, int64_t mirror) {
  if (t == mirror) return {taps[t], 0};
  return {taps[t] + taps[mirror], taps[t] - taps[mirror]};
}

// phases[f, t] and folded[b, t, out, in] of the first half of the taps: neighbouring entries of a symbol lie together.
// Phases depend on the grid alone, but keeping them from call to call would take more care (of streams, of graphs that
// are captured, of what they hold in memory) than this launch takes time, which the taps need anyway.
template <typename Real>
__global__ void __launch_bounds__(kThreads)
    prepare_kernel(const Real* weights, Complex<Real>* phases, Complex<Real>* folded, Shape s) {
  const int64_t index = int64_t(blockIdx.x) * kThreads + threadIdx.x, cosines = s.taps.cosines();
  const int64_t of_phases = s.frequencies * cosines, entries = s.entries();
  const int64_t at = index - (of_phases + kThreads - 1) / kThreads * kThreads;  // taps begin with a block
  if (index < of_phases) {
    phases[index] = phase_of<Real>(s.grid.frequency(index / cosines), index % cosines, s);
  } else if (at >= 0 && at < s.batch * cosines * entries) {
    const int64_t b = at / (cosines * entries), t = at / entries % cosines, count = s.taps.count();
    folded[at] = fold_tap(weights + (b * entries + at % entries) * count, t, count - 1 - t);
  }
}

// gradient[b, entry, t] (+)= Re Σ_f inverse e^{iψ_t(f)} over the launch's frequencies, which the warps of a block
// share. A lane has one entry of the inverses, which are [out, in], or transposed.
template <typename Real>
__global__ void __launch_bounds__(kBlockThreads) fold_kernel(const Complex<Real>* inverses, const Complex<Real>* phases,
                                                             Real* gradient, bool first, bool transposed, Shape s) {
  __shared__ Complex<Real> partial[kSlices][kFoldTaps][32];
  const int lane = threadIdx.x % 32, slice = threadIdx.x / 32;
  const int entries = s.channels * s.channels, blocks = (entries + 31) / 32;  // of one convolution
  const int entry = blockIdx.x % blocks * 32 + lane;
  const int64_t b = blockIdx.x / blocks, count = s.taps.count(), cosines = s.taps.cosines();
  for (int64_t t = 0; t < cosines; t += kFoldTaps) {
    Complex<Real> sum[kFoldTaps] = {};
    if (entry < entries) {
      for (int64_t f = slice; f < s.frequencies; f += kSlices) {
        const Complex<Real> z = inverses[(b * s.frequencies + f) * entries + entry];
#pragma unroll
        for (int k = 0; k < kFoldTaps; ++k) {
          if (t + k >= cosines) continue;
          const Complex<Real> phase = phases[(s.first + f) * cosines + t + k];
          sum[k][0] += z[0] * phase[0];
          sum[k][1] += z[1] * phase[1];
        }
      }
    }
#pragma unroll
    for (int k = 0; k < kFoldTaps; ++k) partial[slice][k][lane] = sum[k];
    __syncthreads();  // all partial sums are there
    for (int k = slice; k < kFoldTaps && t + k < cosines; k += kSlices) {
      Complex<Real> whole = {0, 0};
      for (int i = 0; i < kSlices; ++i) {
        whole[0] += partial[i][k][lane][0];
        whole[1] += partial[i][k][lane][1];
      }
      if (entry < entries) {
        const int place = transposed ? entry % s.channels * s.channels + entry / s.channels : entry;
        Real* out = gradient + (b * entries + place) * count;
        const int64_t mirror = count - 1 - (t + k);
        const Real centre = t + k == mirror ? whole[0] : whole[0] - whole[1];
        out[t + k] = first ? centre : out[t + k] + centre;
        if (t + k != mirror) out[mirror] = (first ? 0 : out[mirror]) + whole[0] + whole[1];
      }
    }
    __syncthreads();  // the partial sums have been read
  }
}

// One warp adds up the log-determinants of one convolution in order.
template <typename Real>
__global__ void __launch_bounds__(kThreads) sum_kernel(const double* logs, Real* logdet, Shape s) {
  const int64_t b = int64_t(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32, count = s.grid.frequencies();
  if (b >= s.batch) return;  // the whole warp
  double sum = 0;
  for (int64_t f = threadIdx.x % 32; f < count; f += 32) sum += logs[b * count + f];
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) logdet[b] = Real(sum);
}

// Where the kernels get all they work on and leave what they find; see launch.h.
template <typename Real> struct Buffers {
  const Real* weight;
  Real *logdet, *gradient;
  Complex<Real>*phases, *folded;
  double* logs;
  Complex<Real>* inverses;
};

template <typename Real, int N, bool kInverse>
cudaError_t eliminate_in_warps(const Buffers<Real>& b, const Shape& s, cudaStream_t stream) {
  return GPU_LAUNCH((warp_kernel<Real, N, kInverse>), blocks_for(s.batch * s.frequencies, kThreads / N), kThreads, 0,
                    stream, b.folded, b.phases, b.logs, b.inverses, s);
}

template <typename Real, bool kInverse>
cudaError_t eliminate(const Buffers<Real>& b, const Shape& s, cudaStream_t stream) {
  if (s.channels <= 8) return eliminate_in_warps<Real, 8, kInverse>(b, s, stream);
  if (s.channels <= 16) return eliminate_in_warps<Real, 16, kInverse>(b, s, stream);
  if constexpr (warp_channels(sizeof(Real)) == 32) {
    if (s.channels <= 32) return eliminate_in_warps<Real, 32, kInverse>(b, s, stream);
  }
  return eliminate_in_blocks<Real, kInverse>(b.weight, b.phases, b.logs, b.inverses, s, stream);
}

template <typename Real> cudaError_t compute(const Buffers<Real>& b, int64_t chunk, Shape s, cudaStream_t stream) {
  const int64_t all = s.grid.frequencies(), cosines = s.taps.cosines();
  const bool in_warps = s.channels <= warp_channels(sizeof(Real));
  s.first = 0;
  s.frequencies = all;
  const int64_t pairs = in_warps ? s.batch * s.entries() * cosines : 0;
  const unsigned blocks = blocks_for(all * cosines, kThreads) + blocks_for(pairs, kThreads);
  cudaError_t error = GPU_LAUNCH(prepare_kernel<Real>, blocks, kThreads, 0, stream, b.weight, b.phases, b.folded, s);
  if (!b.gradient && error == cudaSuccess) error = eliminate<Real, false>(b, s, stream);
  for (; b.gradient && error == cudaSuccess && s.first < all; s.first += chunk) {
    s.frequencies = chunk < all - s.first ? chunk : all - s.first;
    error = eliminate<Real, true>(b, s, stream);
    if (error != cudaSuccess) return error;
    error = GPU_LAUNCH(fold_kernel<Real>, unsigned(s.batch) * blocks_for(s.entries(), 32), kBlockThreads, 0, stream,
                       b.inverses, b.phases, b.gradient, s.first == 0, in_warps, s);
  }
  if (error != cudaSuccess) return error;
  return GPU_LAUNCH(sum_kernel<Real>, blocks_for(s.batch, kThreads / 32), kThreads, 0, stream, b.logs, b.logdet, s);
}

}  // namespace
}  // namespace led::circulant_logdet

using namespace led;
using namespace led::circulant_logdet;

extern "C" cudaError_t led_fast_circulant_logdet(const void* weight, void* logdet, void* gradient, void* phases,
                                                 void* folded, double* logs, void* inverses, int64_t batch,
                                                 int channels, int64_t kernel_rows, int64_t kernel_columns,
                                                 int64_t rows, int64_t columns, int64_t chunk, int dtype,
                                                 cudaStream_t stream) {
  if (batch == 0 || channels == 0) return cudaSuccess;
  const Shape shape{batch, channels, {kernel_rows, kernel_columns}, {rows, columns}, 0, 0};
  return dispatch_real(dtype, [&](auto* type) {
    using Real = std::remove_pointer_t<decltype(type)>;
    const auto complex = [](void* pointer) { return static_cast<Complex<Real>*>(pointer); };
    const Buffers<Real> buffers{static_cast<const Real*>(weight),
                                static_cast<Real*>(logdet),
                                static_cast<Real*>(gradient),
                                complex(phases),
                                complex(folded),
                                logs,
                                complex(inverses)};
    return compute(buffers, chunk, shape, stream);
  });
}
