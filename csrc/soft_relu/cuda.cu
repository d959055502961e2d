// soft-ReLU on the GPU: one pass, 16 bytes an access, samples shared out as common/rows.cuh says. The inverse differs
// in its formulas alone.
#include "common/dispatch.cuh"
#include "common/gpu.h"
#include "common/logarithms.h"
#include "common/rows.cuh"
#include "soft_relu/launch.h"

#define LED_FUNCTION __host__ __device__ __forceinline__
#define LED_HOST_DEVICE __host__ __device__

namespace led::soft_relu {

__device__ __forceinline__ float exp2_negative_abs(float x) { return exp2_flushed(-fabsf(x)); }
__device__ __forceinline__ double exp2_negative_abs(double x) { return exp2(-fabs(x)); }
template <typename Real> __device__ __forceinline__ Real bounded_exp2_negative_abs(Real x) {
  return exp2_negative_abs(x);
}
__device__ __forceinline__ float rough_exp2_negative_abs(float x) { return exp2_flushed(-fabsf(x)); }
__device__ __forceinline__ double rough_exp2_negative_abs(double x) { return exp2_flushed(-fabsf(float(x))); }
using led::log1p_unit;
__device__ __forceinline__ double log1p_unit(double e) { return log1p(e); }
__device__ __forceinline__ float log_of(float x) { return logf(x); }
__device__ __forceinline__ double log_of(double x) { return log(x); }
template <typename Real> __device__ __forceinline__ Real maximum(Real a, Real b) { return a > b ? a : b; }

}  // namespace led::soft_relu
#include "soft_relu/inverse.h"

namespace led::soft_relu {
namespace {

constexpr int64_t kWarpRow = 1024;  // up to so many elements a sample, threads of one warp do it alone

// A sample costs each of its threads about 90 instructions besides its accesses, which take 40 (one float) to 200 (16
// bytes of bfloat16). With up to 8 accesses a thread, an H100 issues those of packed samples of every size in the time
// of their memory traffic, others in at most 1.3 times that, or 2.3 in half precision; with up to 4 it would be 1.7
// and 3.4. What neighbouring threads read apart is no limit then (test_narrow_rows_are_bound_by_memory).
constexpr int kMostAccesses = 8;

// Σ log L' of one thread, with one logarithm for up to safe_factors elements.
template <typename Real> struct LogSum {
  Real product = 1, sum = 0;
  int factors = 0;

  template <int N>
  __device__ __forceinline__ void add(const Real (&numerators)[N], const Real (&log1p)[N], int safe_factors) {
    if (factors + N > safe_factors) {
      sum += log_of(product);
      product = 1;
      factors = 0;
    }
    factors += N;
#pragma unroll
    for (int k = 0; k < N; ++k) {
      if (N == 1 || N <= safe_factors) product *= numerators[k];
      else sum += log_of(numerators[k]);
      sum -= log1p[k];
    }
  }
  __device__ __forceinline__ Real total() const { return sum + log_of(product); }
};

// P is Parameters or InverseParameters of the type that T is computed in: the map that is applied. `packs` and `parts`
// are those of a row.
template <typename T, int N, bool kPieces, typename P>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const Pack<T, N>* x, Pack<T, N>* y, accumulate_t<T>* log_abs_det, double* workspace, int64_t rows,
                   int64_t packs, unsigned parts, P p) {
  using Real = accumulate_t<T>;
  const Share share = share_of<kPieces>(packs, kPieceSize / N, parts);
  LogSum<Real> log_sum;
  if (share.row < rows) {
    const int64_t row = share.row * packs;
    for (int64_t i = row + share.begin + share.thread; i < row + share.end; i += share.threads) {
      Pack<T, N> pack = x[i];
      Real numerators[N], log1p[N];
#pragma unroll
      for (int k = 0; k < N; ++k) {
        const auto terms = forward_terms(static_cast<Real>(pack[k]), p);
        pack[k] = T(terms.value);
        numerators[k] = terms.numerator;
        log1p[k] = terms.log1p;
      }
      y[i] = pack;
      log_sum.add(numerators, log1p, p.safe_factors);
    }
  }
  write_sum<kPieces>(log_sum.total() * P::direction, share, log_abs_det, workspace, rows, parts);
}

template <typename T, int N, bool kPieces, typename P>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(const Pack<T, N>* x, const Pack<T, N>* grad_y, const accumulate_t<T>* grad_log_abs_det,
                    Pack<T, N>* grad_x, int64_t rows, int64_t packs, unsigned parts, P p) {
  using Real = accumulate_t<T>;
  const Share share = share_of<kPieces>(packs, kPieceSize / N, parts);
  if (share.row >= rows) return;
  const Real grad_log = grad_log_abs_det ? grad_log_abs_det[share.row] : Real(0);
  const int64_t row = share.row * packs;
  for (int64_t i = row + share.begin + share.thread; i < row + share.end; i += share.threads) {
    Pack<T, N> pack = x[i], gradient{};
    if (grad_y) gradient = grad_y[i];
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const auto terms = backward_terms(static_cast<Real>(pack[k]), p);
      const Real from_log = terms.log_slope * grad_log;
      pack[k] = T(grad_y ? static_cast<Real>(gradient[k]) * terms.slope + from_log : from_log);
    }
    grad_x[i] = pack;
  }
}

template <typename T, int N> const Pack<T, N>* packs_of(const void* pointer) {
  return static_cast<const Pack<T, N>*>(pointer);
}
template <typename T, int N> Pack<T, N>* packs_of(void* pointer) { return static_cast<Pack<T, N>*>(pointer); }

template <typename T, int N, typename P>
cudaError_t forward(const void* x, void* y, accumulate_t<T>* log_abs_det, double* workspace, int64_t rows,
                    int64_t row_size, const P& p, cudaStream_t stream) {
  const auto from = packs_of<T, N>(x);
  const auto to = packs_of<T, N>(y);
  const int64_t packs = row_size / N;
  if (row_size <= kWarpRow) {
    const int log2 = threads_log2(packs, kMostAccesses);
    return GPU_LAUNCH((forward_kernel<T, N, false, P>), blocks_of_rows(rows, log2), kThreads, 0, stream, from, to,
                      log_abs_det, workspace, rows, packs, log2, p);
  }
  const int64_t pieces = pieces_of(row_size);
  const cudaError_t error = GPU_LAUNCH((forward_kernel<T, N, true, P>), unsigned(rows * pieces), kThreads, 0, stream,
                                       from, to, log_abs_det, workspace, rows, packs, unsigned(pieces), p);
  return error == cudaSuccess && pieces > 1 ? sum_pieces(workspace, log_abs_det, rows, pieces, stream) : error;
}

template <typename T, int N, typename P>
cudaError_t backward(const void* x, const void* grad_y, const accumulate_t<T>* grad_log_abs_det, void* grad_x,
                     int64_t rows, int64_t row_size, const P& p, cudaStream_t stream) {
  const auto from = packs_of<T, N>(x), gradient = packs_of<T, N>(grad_y);
  const auto to = packs_of<T, N>(grad_x);
  const int64_t packs = row_size / N;
  if (row_size <= kWarpRow) {
    const int log2 = threads_log2(packs, kMostAccesses);
    return GPU_LAUNCH((backward_kernel<T, N, false, P>), blocks_of_rows(rows, log2), kThreads, 0, stream, from,
                      gradient, grad_log_abs_det, to, rows, packs, log2, p);
  }
  const int64_t pieces = pieces_of(row_size);
  return GPU_LAUNCH((backward_kernel<T, N, true, P>), unsigned(rows * pieces), kThreads, 0, stream, from, gradient,
                    grad_log_abs_det, to, rows, packs, unsigned(pieces), p);
}

// Calls f with null pointers of the dtype's type and of the map's parameters.
template <typename F> cudaError_t dispatch_map(int dtype, bool inverse, F f) {
  return dispatch(dtype, [&](auto* type) {
    using Real = accumulate_t<std::remove_pointer_t<decltype(type)>>;
    return inverse ? f(type, static_cast<InverseParameters<Real>*>(nullptr))
                   : f(type, static_cast<Parameters<Real>*>(nullptr));
  });
}

template <template <typename> class P>
cudaError_t dispatch_forward(const void* x, void* y, void* log_abs_det, double* workspace, int64_t rows,
                             int64_t row_size, double alpha, double beta, double u0, double t0, int dtype,
                             cudaStream_t stream) {
  if (rows == 0 || row_size == 0) return cudaSuccess;
  return dispatch(dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    using Real = accumulate_t<T>;
    const bool packed = row_size % kPackSize<T> == 0 && aligned(x) && aligned(y);
    return (packed ? forward<T, kPackSize<T>, P<Real>> : forward<T, 1, P<Real>>)(x, y, static_cast<Real*>(log_abs_det),
                                                                                 workspace, rows, row_size,
                                                                                 P<Real>(alpha, beta, u0, t0), stream);
  });
}

template <template <typename> class P>
cudaError_t dispatch_backward(const void* x, const void* grad_y, const void* grad_log_abs_det, void* grad_x,
                              int64_t rows, int64_t row_size, double alpha, double beta, double u0, double t0,
                              int dtype, cudaStream_t stream) {
  if (rows == 0 || row_size == 0) return cudaSuccess;
  return dispatch(dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    using Real = accumulate_t<T>;
    const bool packed = row_size % kPackSize<T> == 0 && aligned(x) && aligned(grad_y) && aligned(grad_x);
    return (packed ? backward<T, kPackSize<T>, P<Real>>
                   : backward<T, 1, P<Real>>)(x, grad_y, static_cast<const Real*>(grad_log_abs_det), grad_x, rows,
                                              row_size, P<Real>(alpha, beta, u0, t0), stream);
  });
}

}  // namespace
}  // namespace led::soft_relu
#include "soft_relu/per_feature_kernels.h"

using namespace led;
using namespace led::soft_relu;

extern "C" cudaError_t led_fast_soft_relu_forward(const void* x, void* y, void* log_abs_det, double* workspace,
                                                  int64_t rows, int64_t row_size, double alpha, double beta, double u0,
                                                  double t0, int dtype, cudaStream_t stream) {
  return dispatch_forward<Parameters>(x, y, log_abs_det, workspace, rows, row_size, alpha, beta, u0, t0, dtype, stream);
}

extern "C" cudaError_t led_fast_soft_relu_backward(const void* x, const void* grad_y, const void* grad_log_abs_det,
                                                   void* grad_x, int64_t rows, int64_t row_size, double alpha,
                                                   double beta, double u0, int dtype, cudaStream_t stream) {
  return dispatch_backward<Parameters>(x, grad_y, grad_log_abs_det, grad_x, rows, row_size, alpha, beta, u0, 0, dtype,
                                       stream);
}

extern "C" cudaError_t led_fast_soft_relu_inverse(const void* y, void* x, void* log_abs_det, double* workspace,
                                                  int64_t rows, int64_t row_size, double alpha, double beta, double u0,
                                                  double t0, int dtype, cudaStream_t stream) {
  return dispatch_forward<InverseParameters>(y, x, log_abs_det, workspace, rows, row_size, alpha, beta, u0, t0, dtype,
                                             stream);
}

extern "C" cudaError_t led_fast_soft_relu_inverse_backward(const void* y, const void* grad_x,
                                                           const void* grad_log_abs_det, void* grad_y, int64_t rows,
                                                           int64_t row_size, double alpha, double beta, double u0,
                                                           double t0, int dtype, cudaStream_t stream) {
  return dispatch_backward<InverseParameters>(y, grad_x, grad_log_abs_det, grad_y, rows, row_size, alpha, beta, u0, t0,
                                              dtype, stream);
}

extern "C" cudaError_t led_fast_soft_relu_per_feature(const void* x, void* y, void* log_abs_det, double* workspace,
                                                      const void* ratio, const void* sharpness, const void* u0,
                                                      const void* t0, bool wide, void* numbers, int64_t rows,
                                                      int64_t row_size, int64_t features, int64_t run, bool inverse,
                                                      int dtype, cudaStream_t stream) {
  if (rows == 0 || row_size == 0) return cudaSuccess;
  return dispatch_map(dtype, inverse, [&](auto* type, auto* map) {
    using T = std::remove_pointer_t<decltype(type)>;
    using P = std::remove_pointer_t<decltype(map)>;
    using Real = accumulate_t<T>;
    Real* const table = static_cast<Real*>(numbers);
    const cudaError_t error = with_given(ratio, sharpness, u0, t0, features, wide,
                                         [&](const auto& given) { return make_table<P>(given, table, stream); });
    if (error != cudaSuccess) return error;
    return per_feature_forward<T, P>(static_cast<const T*>(x), static_cast<T*>(y), static_cast<Real*>(log_abs_det),
                                     workspace, table, rows, row_size, features, run, stream);
  });
}

extern "C" cudaError_t led_fast_soft_relu_per_feature_backward(
    const void* x, const void* grad_y, const void* grad_log_abs_det, void* grad_x, double* workspace, const void* ratio,
    const void* sharpness, const void* u0, const void* t0, bool wide, void* numbers, void* grads, int64_t rows,
    int64_t row_size, int64_t features, int64_t run, bool inverse, int dtype, cudaStream_t stream) {
  if (rows == 0 || row_size == 0) return cudaSuccess;
  return dispatch_map(dtype, inverse, [&](auto* type, auto* map) {
    using T = std::remove_pointer_t<decltype(type)>;
    using P = std::remove_pointer_t<decltype(map)>;
    using Real = accumulate_t<T>;
    Real* const table = static_cast<Real*>(numbers);
    return with_given(ratio, sharpness, u0, t0, features, wide, [&](const auto& given) {
      cudaError_t error = make_table<P>(given, table, stream);
      if (error == cudaSuccess)
        error = per_feature_backward<T, P>(static_cast<const T*>(x), static_cast<const T*>(grad_y),
                                           static_cast<const Real*>(grad_log_abs_det), static_cast<T*>(grad_x), table,
                                           workspace, rows, row_size, features, run, stream);
      if (error != cudaSuccess) return error;
      return parameter_gradients(workspace, given, grads, outer_chunks(rows, row_size, features, run), stream);
    });
  });
}
