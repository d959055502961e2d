// soft-ReLU on the GPU: one pass, 16 bytes an access. A short sample belongs to a warp, a longer one to a block, and a
// long one to several blocks, whose sums a second kernel adds in order, so that every run gives the same bits. The
// inverse differs in its formulas alone.
#include "common/dispatch.cuh"
#include "common/gpu.h"
#include "common/reduce.cuh"
#include "soft_relu/launch.h"

#define LED_FUNCTION __host__ __device__ __forceinline__
#define LED_HOST_DEVICE __host__ __device__

namespace led::soft_relu {

__device__ __forceinline__ float exp2_negative_abs(float x) { return exp2f(-fabsf(x)); }
__device__ __forceinline__ double exp2_negative_abs(double x) { return exp2(-fabs(x)); }
template <typename Real> __device__ __forceinline__ Real bounded_exp2_negative_abs(Real x) {
  return exp2_negative_abs(x);
}
__device__ __forceinline__ float rough_exp2_negative_abs(float x) { return exp2f(-fabsf(x)); }
__device__ __forceinline__ double rough_exp2_negative_abs(double x) { return exp2f(-fabsf(float(x))); }
// For the host too, because nvcc checks a call that does not depend on a template where it stands.
__host__ __device__ __forceinline__ float rough_log2(float x) { return log2f(x); }
__device__ __forceinline__ float log1p_unit(float e) { return log1pf(e); }
__device__ __forceinline__ double log1p_unit(double e) { return log1p(e); }
__device__ __forceinline__ float log_of(float x) { return logf(x); }
__device__ __forceinline__ double log_of(double x) { return log(x); }
template <typename Real> __device__ __forceinline__ Real maximum(Real a, Real b) { return a > b ? a : b; }

}  // namespace led::soft_relu
#include "soft_relu/inverse.h"

namespace led::soft_relu {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kWarpRow = 1024;  // up to so many elements a sample, a warp does it alone

// Elements [begin, end) of row `row` belong to the kGroup threads of which this is one.
template <int kGroup> struct Piece {
  int64_t row, index, begin, end;

  __device__ Piece(int64_t row_size, int64_t pieces) {
    const int64_t piece = int64_t(blockIdx.x) * (kThreads / kGroup) + threadIdx.x / kGroup;
    row = piece / pieces;
    index = piece % pieces;
    begin = index * kPieceSize;
    end = pieces == 1 ? row_size : min(begin + kPieceSize, row_size);
  }
};

// Σ log L' of one thread, with one logarithm for up to safe_factors elements.
template <typename Real> struct LogSum {
  Real product = 1, sum = 0;
  int factors = 0;

  __device__ __forceinline__ void add(const ForwardTerms<Real>& terms, int safe_factors) {
    if (factors == safe_factors) {
      sum += log_of(product);
      product = 1;
      factors = 0;
    }
    product *= terms.numerator;
    sum -= terms.log1p;
    ++factors;
  }
  __device__ __forceinline__ Real total() const { return sum + log_of(product); }
};

// Adds up the sums of a piece's threads. All threads of the block take part.
template <typename Real, int kGroup>
__device__ __forceinline__ void write_sum(Real sum, const Piece<kGroup>& piece, Real* log_abs_det, double* workspace,
                                          int64_t rows, int64_t pieces) {
  if constexpr (kGroup == 32) {
    sum = warp_sum(sum);
  } else {
    __shared__ Real scratch[kThreads / 32];
    sum = block_sum<kThreads>(sum, scratch);
  }
  if (threadIdx.x % kGroup == 0 && piece.row < rows) {
    if (pieces == 1) log_abs_det[piece.row] = sum;
    else workspace[piece.row * pieces + piece.index] = sum;
  }
}

// P is Parameters or InverseParameters of the type that T is computed in: the map that is applied.
template <typename T, int N, int kGroup, typename P>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const T* x, T* y, accumulate_t<T>* log_abs_det, double* workspace, int64_t rows, int64_t row_size,
                   int64_t pieces, P p) {
  using Real = accumulate_t<T>;
  const Piece<kGroup> piece(row_size, pieces);
  LogSum<Real> log_sum;
  if (piece.row < rows) {
    const T* from = x + piece.row * row_size;
    T* to = y + piece.row * row_size;
    for (int64_t i = piece.begin + threadIdx.x % kGroup * N; i < piece.end; i += kGroup * N) {
      Pack<T, N> pack = *reinterpret_cast<const Pack<T, N>*>(from + i);
#pragma unroll
      for (int k = 0; k < N; ++k) {
        const auto terms = forward_terms(static_cast<Real>(pack[k]), p);
        pack[k] = T(terms.value);
        log_sum.add(terms, p.safe_factors);
      }
      *reinterpret_cast<Pack<T, N>*>(to + i) = pack;
    }
  }
  write_sum(log_sum.total() * P::direction, piece, log_abs_det, workspace, rows, pieces);
}

// One warp a row: adds the row's pieces in order.
template <typename Real>
__global__ void __launch_bounds__(kThreads)
    sum_pieces_kernel(const double* workspace, Real* log_abs_det, int64_t rows, int64_t pieces) {
  const int64_t row = int64_t(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  if (row >= rows) return;  // the whole warp
  double sum = 0;
  for (int64_t i = threadIdx.x % 32; i < pieces; i += 32) sum += workspace[row * pieces + i];
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) log_abs_det[row] = Real(sum);
}

template <typename T, int N, int kGroup, typename P>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(const T* x, const T* grad_y, const accumulate_t<T>* grad_log_abs_det, T* grad_x, int64_t rows,
                    int64_t row_size, int64_t pieces, P p) {
  using Real = accumulate_t<T>;
  const Piece<kGroup> piece(row_size, pieces);
  if (piece.row >= rows) return;
  const Real grad_log = grad_log_abs_det ? grad_log_abs_det[piece.row] : Real(0);
  const int64_t offset = piece.row * row_size;
  for (int64_t i = offset + piece.begin + threadIdx.x % kGroup * N; i < offset + piece.end; i += kGroup * N) {
    Pack<T, N> pack = *reinterpret_cast<const Pack<T, N>*>(x + i), gradient{};
    if (grad_y) gradient = *reinterpret_cast<const Pack<T, N>*>(grad_y + i);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const auto terms = backward_terms(static_cast<Real>(pack[k]), p);
      const Real from_log = terms.log_slope * grad_log;
      pack[k] = T(grad_y ? static_cast<Real>(gradient[k]) * terms.slope + from_log : from_log);
    }
    *reinterpret_cast<Pack<T, N>*>(grad_x + i) = pack;
  }
}

bool aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

unsigned blocks_for(int64_t rows, int64_t pieces, int group) {
  const int64_t per_block = kThreads / group;
  return unsigned((rows * pieces + per_block - 1) / per_block);
}

template <typename T, int N, typename P>
cudaError_t forward(const T* x, T* y, accumulate_t<T>* log_abs_det, double* workspace, int64_t rows, int64_t row_size,
                    const P& p, cudaStream_t stream) {
  if (row_size <= kWarpRow)
    return GPU_LAUNCH((forward_kernel<T, N, 32, P>), blocks_for(rows, 1, 32), kThreads, 0, stream, x, y, log_abs_det,
                      workspace, rows, row_size, 1, p);
  const int64_t pieces = pieces_of(row_size);
  const cudaError_t error = GPU_LAUNCH((forward_kernel<T, N, kThreads, P>), blocks_for(rows, pieces, kThreads),
                                       kThreads, 0, stream, x, y, log_abs_det, workspace, rows, row_size, pieces, p);
  if (pieces == 1 || error != cudaSuccess) return error;
  return GPU_LAUNCH((sum_pieces_kernel<accumulate_t<T>>), blocks_for(rows, 1, 32), kThreads, 0, stream, workspace,
                    log_abs_det, rows, pieces);
}

template <typename T, int N, typename P>
cudaError_t backward(const T* x, const T* grad_y, const accumulate_t<T>* grad_log_abs_det, T* grad_x, int64_t rows,
                     int64_t row_size, const P& p, cudaStream_t stream) {
  if (row_size <= kWarpRow)
    return GPU_LAUNCH((backward_kernel<T, N, 32, P>), blocks_for(rows, 1, 32), kThreads, 0, stream, x, grad_y,
                      grad_log_abs_det, grad_x, rows, row_size, 1, p);
  const int64_t pieces = pieces_of(row_size);
  return GPU_LAUNCH((backward_kernel<T, N, kThreads, P>), blocks_for(rows, pieces, kThreads), kThreads, 0, stream, x,
                    grad_y, grad_log_abs_det, grad_x, rows, row_size, pieces, p);
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
    return (packed ? forward<T, kPackSize<T>, P<Real>>
                   : forward<T, 1, P<Real>>)(static_cast<const T*>(x), static_cast<T*>(y),
                                             static_cast<Real*>(log_abs_det), workspace, rows, row_size,
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
                   : backward<T, 1, P<Real>>)(static_cast<const T*>(x), static_cast<const T*>(grad_y),
                                              static_cast<const Real*>(grad_log_abs_det), static_cast<T*>(grad_x), rows,
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
