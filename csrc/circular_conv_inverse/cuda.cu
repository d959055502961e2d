// Circular convolutions undone on the GPU, between the Fourier transforms, which are cuFFT's. A block inverts the
// symbol at a frequency in its shared memory, where it evaluates it from the taps. Everywhere else neighbouring threads
// have neighbouring frequencies, so that all they read and write lies together. No atomics: every run gives the same
// bits.
#include "circulant_logdet/determinant.cuh"
#include "circular_conv_inverse/launch.h"
#include "common/dispatch.cuh"
#include "common/shared_memory.h"

namespace led::circular_conv_inverse {
namespace {

using namespace circulant_logdet;

constexpr int kThreads = 128;  // of a block of every kernel but invert_kernel
constexpr int kTile = 4;       // rows and columns of a product that a thread has

struct Shape {
  int64_t samples;
  int channels;
  int64_t kernel_rows, kernel_columns, rows, columns;

  __device__ __host__ int64_t taps() const { return kernel_rows * kernel_columns; }
  __device__ __host__ int64_t half() const { return columns / 2 + 1; }
  __device__ __host__ int64_t frequencies() const { return rows * half(); }
  // How often a frequency's column occurs in the whole spectrum.
  __device__ int occurrences(int64_t frequency) const { return 2 * (frequency % half()) % columns == 0 ? 1 : 2; }
};

// a += left right, or conj(left) right.
template <bool kConjugate, typename Real>
__device__ __forceinline__ void add_product(Complex<Real>& a, Complex<Real> left, Complex<Real> right) {
  const Real sign = kConjugate ? -1 : 1;
  a[0] += left[0] * right[0];  // four multiply-adds; one expression for each part would be six operations
  a[1] += left[0] * right[1];
  a[0] -= sign * left[1] * right[1];
  a[1] += sign * left[1] * right[0];
}

// e^{iθ} of the half turns θ/π = 2 f (tap - centre) / size.
__device__ __forceinline__ Complex<double> phase_of(int64_t f, int64_t tap, int64_t taps, int64_t size) {
  const int64_t turns = 2 * f * (tap - (taps - 1) / 2) % (2 * size);
  Complex<double> z;
  sincospi(double(turns) / double(size), &z[1], &z[0]);
  return z;
}

// phases[t, f] of all taps: symbol(f) = Σ_t weight_t phases[t, f].
template <typename Real> __global__ void __launch_bounds__(kThreads) phase_kernel(Complex<Real>* phases, Shape s) {
  const int64_t index = int64_t(blockIdx.x) * kThreads + threadIdx.x, count = s.frequencies();
  if (index >= s.taps() * count) return;
  const int64_t f = index % count, t = index / count;
  const Complex<double> phase = multiply(phase_of(f / s.half(), t / s.kernel_columns, s.kernel_rows, s.rows),
                                         phase_of(f % s.half(), t % s.kernel_columns, s.kernel_columns, s.columns));
  phases[index] = {Real(phase[0]), Real(phase[1])};
}

// One block a frequency. What has no inverse becomes NaN.
template <typename Real, int kSlots>
__global__ void __launch_bounds__(block_threads(kSlots), min_blocks(kSlots, sizeof(Real)))
    invert_kernel(const Real* weight, const Complex<Real>* phases, Complex<Real>* inverses, double* logs, Shape s) {
  constexpr int kThreads = block_threads(kSlots);
  GPU_DYNAMIC_SHARED(unsigned char, memory);
  __shared__ double log_abs_det;
  BlockMatrix<Real> m(memory, s.channels);
  const int n = m.n, thread = threadIdx.x;
  const int64_t f = blockIdx.x, count = s.frequencies(), taps = s.taps();
  for (int e = thread; e < n * n; e += kThreads) {
    Complex<Real> symbol = {0, 0};
    for (int64_t t = 0; t < taps; ++t) {
      const Real tap = weight[e * taps + t];
      const Complex<Real> phase = phases[t * count + f];
      symbol[0] += tap * phase[0];
      symbol[1] += tap * phase[1];
    }
    m.entry(e / n, e % n) = symbol;
  }
  eliminate_in_block<Real, true, kSlots>(m);
  const double sum = log_abs_det_in_block(m, &log_abs_det);
  if (thread == 0) logs[f] = sum;
  const Real one = Real(1 + (sum - sum));
  for (int e = thread; e < n * n; e += kThreads) {
    const Complex<Real> entry = m.entry(m.order[e / n], e % n);
    inverses[(int64_t(e / n) * n + m.order[e % n]) * count + f] = {entry[0] * one, entry[1] * one};
  }
}

// One warp adds up the log-determinants in order. That of the inverse map is their opposite.
template <typename Real>
__global__ void __launch_bounds__(32) sum_kernel(const double* logs, Real* log_abs_det, Shape s) {
  double sum = 0;
  for (int64_t f = threadIdx.x; f < s.frequencies(); f += 32) sum -= logs[f] * s.occurrences(f);
  sum = warp_sum(sum);
  if (threadIdx.x == 0) log_abs_det[0] = Real(sum);
}

// A thread's tile: the first of its kTile rows and columns, and its frequency.
struct Tile {
  int64_t row, column, frequency;

  __device__ Tile(int64_t index, int64_t frequencies, int64_t rows) {
    const int64_t row_tiles = (rows + kTile - 1) / kTile;
    frequency = index % frequencies;
    row = index / frequencies % row_tiles * kTile;
    column = index / frequencies / row_tiles * kTile;
  }
};
int64_t tiles(int64_t rows, int64_t columns, int64_t frequencies) {
  return (rows + kTile - 1) / kTile * ((columns + kTile - 1) / kTile) * frequencies;
}

template <typename Real, bool kAdjoint>
__global__ void __launch_bounds__(kThreads)
    solve_kernel(const Complex<Real>* spectrum, const Complex<Real>* inverses, Complex<Real>* solved, int64_t samples,
                 int channels, int64_t frequencies) {
  const int64_t index = int64_t(blockIdx.x) * kThreads + threadIdx.x, n = channels;
  const Tile tile(index, frequencies, n);
  if (tile.column >= samples) return;
  Complex<Real> sum[kTile][kTile] = {};
  for (int64_t k = 0; k < n; ++k) {
    Complex<Real> left[kTile], right[kTile];
#pragma unroll
    for (int i = 0; i < kTile; ++i) {
      const int64_t row = min(tile.row + i, n - 1), sample = min(tile.column + i, samples - 1);
      left[i] = inverses[(kAdjoint ? k * n + row : row * n + k) * frequencies + tile.frequency];
      right[i] = spectrum[(sample * n + k) * frequencies + tile.frequency];
    }
#pragma unroll
    for (int i = 0; i < kTile; ++i)
#pragma unroll
      for (int j = 0; j < kTile; ++j) add_product<kAdjoint>(sum[i][j], left[i], right[j]);
  }
#pragma unroll
  for (int i = 0; i < kTile; ++i)
#pragma unroll
    for (int j = 0; j < kTile; ++j)
      if (tile.row + i < n && tile.column + j < samples)
        solved[((tile.column + j) * n + tile.row + i) * frequencies + tile.frequency] = sum[i][j];
}

// products[i, j, f] = -1/N occurrences (Σ_b conj(grad_ib) solved_jb + N grad_log inverse_ji), with N grid cells.
template <typename Real>
__global__ void __launch_bounds__(kThreads)
    correlate_kernel(const Complex<Real>* grad, const Complex<Real>* solved, const Complex<Real>* inverses,
                     const Real* grad_log, Complex<Real>* products, Shape s) {
  const int64_t index = int64_t(blockIdx.x) * kThreads + threadIdx.x, n = s.channels, count = s.frequencies();
  const Tile tile(index, count, n);
  if (tile.column >= n) return;
  Complex<Real> sum[kTile][kTile] = {};
  for (int64_t b = 0; grad && b < s.samples; ++b) {
    Complex<Real> left[kTile], right[kTile];
#pragma unroll
    for (int i = 0; i < kTile; ++i) {
      left[i] = grad[(b * n + min(tile.row + i, n - 1)) * count + tile.frequency];
      right[i] = solved[(b * n + min(tile.column + i, n - 1)) * count + tile.frequency];
    }
#pragma unroll
    for (int i = 0; i < kTile; ++i)
#pragma unroll
      for (int j = 0; j < kTile; ++j) add_product<true>(sum[i][j], left[i], right[j]);
  }
  const Real cells = Real(s.rows) * Real(s.columns), of_log = grad_log ? grad_log[0] * cells : Real(0);
  const Real scale = Real(-s.occurrences(tile.frequency)) / cells;
#pragma unroll
  for (int i = 0; i < kTile; ++i)
#pragma unroll
    for (int j = 0; j < kTile; ++j) {
      if (tile.row + i >= n || tile.column + j >= n) continue;
      Complex<Real> product = sum[i][j];
      if (of_log != 0) {
        const Complex<Real> inverse = inverses[((tile.column + j) * n + tile.row + i) * count + tile.frequency];
        product = {product[0] + of_log * inverse[0], product[1] + of_log * inverse[1]};
      }
      products[((tile.row + i) * n + tile.column + j) * count + tile.frequency] = {product[0] * scale,
                                                                                   product[1] * scale};
    }
}

// A warp adds up Re products[entry, f] phases[t, f] over the frequencies, for one entry and all taps.
template <typename Real>
__global__ void __launch_bounds__(kThreads)
    fold_kernel(const Complex<Real>* products, const Complex<Real>* phases, Real* grad_weight, Shape s) {
  const int64_t entry = int64_t(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32, count = s.frequencies();
  if (entry >= int64_t(s.channels) * s.channels) return;  // the whole warp
  for (int64_t t = 0; t < s.taps(); ++t) {
    Real sum = 0;
    for (int64_t f = threadIdx.x % 32; f < count; f += 32) {
      const Complex<Real> z = products[entry * count + f], phase = phases[t * count + f];
      sum += z[0] * phase[0] - z[1] * phase[1];
    }
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) grad_weight[entry * s.taps() + t] = sum;
  }
}

template <typename Real> cudaError_t make_phases(Complex<Real>* phases, const Shape& s, cudaStream_t stream) {
  return GPU_LAUNCH(phase_kernel<Real>, blocks_for(s.taps() * s.frequencies(), kThreads), kThreads, 0, stream, phases,
                    s);
}

template <typename Real>
cudaError_t invert(const Real* weight, Complex<Real>* inverses, Real* log_abs_det, Complex<Real>* phases, double* logs,
                   const Shape& s, cudaStream_t stream) {
  const auto block =
      block_kernel_for<Real, 1>(s.channels, [](auto slots) { return &invert_kernel<Real, slots.value>; });
  if (!block.kernel) return cudaErrorInvalidValue;
  const size_t bytes = BlockMatrix<Real>::bytes(s.channels);
  cudaError_t error = allow_dynamic_shared(block.kernel, bytes);
  if (error == cudaSuccess) error = make_phases(phases, s, stream);
  if (error != cudaSuccess) return error;
  error = GPU_LAUNCH(block.kernel, unsigned(s.frequencies()), block.threads, bytes, stream, weight, phases, inverses,
                     logs, s);
  if (error != cudaSuccess) return error;
  return GPU_LAUNCH(sum_kernel<Real>, 1, 32, 0, stream, logs, log_abs_det, s);
}

template <typename Real, bool kAdjoint>
cudaError_t solve(const Complex<Real>* spectrum, const Complex<Real>* inverses, Complex<Real>* solved, int64_t samples,
                  int channels, int64_t frequencies, cudaStream_t stream) {
  return GPU_LAUNCH((solve_kernel<Real, kAdjoint>), blocks_for(tiles(channels, samples, frequencies), kThreads),
                    kThreads, 0, stream, spectrum, inverses, solved, samples, channels, frequencies);
}

template <typename Real>
cudaError_t differentiate(const Complex<Real>* grad, const Complex<Real>* solved, const Complex<Real>* inverses,
                          const Real* grad_log, Real* grad_weight, Complex<Real>* phases, Complex<Real>* products,
                          const Shape& s, cudaStream_t stream) {
  cudaError_t error = make_phases(phases, s, stream);
  if (error != cudaSuccess) return error;
  error = GPU_LAUNCH(correlate_kernel<Real>, blocks_for(tiles(s.channels, s.channels, s.frequencies()), kThreads),
                     kThreads, 0, stream, grad, solved, inverses, grad_log, products, s);
  if (error != cudaSuccess) return error;
  return GPU_LAUNCH(fold_kernel<Real>, blocks_for(int64_t(s.channels) * s.channels, kThreads / 32), kThreads, 0, stream,
                    products, phases, grad_weight, s);
}

}  // namespace
}  // namespace led::circular_conv_inverse

using namespace led;
using namespace led::circular_conv_inverse;

extern "C" cudaError_t led_fast_circular_conv_invert(const void* weight, void* inverses, void* log_abs_det,
                                                     void* phases, double* logs, int channels, int64_t kernel_rows,
                                                     int64_t kernel_columns, int64_t rows, int64_t columns, int dtype,
                                                     cudaStream_t stream) {
  const Shape shape{0, channels, kernel_rows, kernel_columns, rows, columns};
  return dispatch_real(dtype, [&](auto* type) {
    using Real = std::remove_pointer_t<decltype(type)>;
    return invert(static_cast<const Real*>(weight), static_cast<Complex<Real>*>(inverses),
                  static_cast<Real*>(log_abs_det), static_cast<Complex<Real>*>(phases), logs, shape, stream);
  });
}

extern "C" cudaError_t led_fast_circular_conv_solve(const void* spectrum, const void* inverses, void* solved,
                                                    int64_t samples, int channels, int64_t frequencies, bool adjoint,
                                                    int dtype, cudaStream_t stream) {
  if (samples == 0 || channels == 0) return cudaSuccess;
  return dispatch_real(dtype, [&](auto* type) {
    using Real = std::remove_pointer_t<decltype(type)>;
    const auto* from = static_cast<const Complex<Real>*>(spectrum);
    const auto* left = static_cast<const Complex<Real>*>(inverses);
    auto* to = static_cast<Complex<Real>*>(solved);
    return adjoint ? solve<Real, true>(from, left, to, samples, channels, frequencies, stream)
                   : solve<Real, false>(from, left, to, samples, channels, frequencies, stream);
  });
}

extern "C" cudaError_t led_fast_circular_conv_weight_gradient(const void* grad_spectrum, const void* solved,
                                                              const void* inverses, const void* grad_log_abs_det,
                                                              void* grad_weight, void* phases, void* products,
                                                              int64_t samples, int channels, int64_t kernel_rows,
                                                              int64_t kernel_columns, int64_t rows, int64_t columns,
                                                              int dtype, cudaStream_t stream) {
  if (channels == 0) return cudaSuccess;
  const Shape shape{samples, channels, kernel_rows, kernel_columns, rows, columns};
  return dispatch_real(dtype, [&](auto* type) {
    using Real = std::remove_pointer_t<decltype(type)>;
    return differentiate(static_cast<const Complex<Real>*>(grad_spectrum), static_cast<const Complex<Real>*>(solved),
                         static_cast<const Complex<Real>*>(inverses), static_cast<const Real*>(grad_log_abs_det),
                         static_cast<Real*>(grad_weight), static_cast<Complex<Real>*>(phases),
                         static_cast<Complex<Real>*>(products), shape, stream);
  });
}
