// The kernels for parameters per feature, which cuda.cu includes. Each element loads the numbers of its feature from a
// table that a first kernel makes. Sums over a feature are those of chunks, added in order by a last kernel.
#pragma once
#include "soft_relu/per_feature.h"

namespace led::soft_relu {
namespace {

constexpr int kSums = FeatureTerms<float>::kSums;

// The table: row i holds number i of every feature; the last one what share of 16 safe factors a slope takes.
template <typename P, typename Number, typename Real>
__global__ void __launch_bounds__(kThreads) table_kernel(const Number* ratio, const Number* sharpness, const Number* u0,
                                                         const Number* t0, Real* numbers, int64_t features) {
  const int64_t f = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (f >= features) return;
  P p(double(ratio[f]), double(sharpness[f]), 1 - double(ratio[f]), double(u0[f]), double(t0[f]));
  Real* number = numbers + f;
  p.each([&](Real& value) { *number = value, number += features; });
  *number = Real((p.safe_factors + 15) / p.safe_factors);
}

template <typename P, typename Real>
__device__ __forceinline__ P load_parameters(const Real* numbers, int64_t feature, int64_t features) {
  P p;
  const Real* number = numbers + feature;
  p.each([&](Real& value) { value = *number, number += features; });
  p.safe_factors = int(*number);
  return p;
}

template <typename T, bool kPieces, typename P>
__global__ void __launch_bounds__(kThreads)
    per_feature_kernel(const T* x, T* y, accumulate_t<T>* log_abs_det, double* workspace,
                       const accumulate_t<T>* numbers, int64_t rows, int64_t row_size, unsigned parts, int64_t features,
                       int64_t run) {
  using Real = accumulate_t<T>;
  const Share share = share_of<kPieces>(row_size, kPieceSize, parts);
  Real product = 1, sum = 0;
  int shares = 0;
  if (share.row < rows) {
    const T* from = x + share.row * row_size;
    T* to = y + share.row * row_size;
    for (int64_t i = share.begin + share.thread; i < share.end; i += share.threads) {
      const P p = load_parameters<P>(numbers, i / run % features, features);
      const auto terms = forward_terms(static_cast<Real>(from[i]), p);
      to[i] = T(terms.value);
      shares += p.safe_factors;
      if (shares > 16) {
        sum += log_of(product);
        product = 1;
        shares = p.safe_factors;
      }
      product *= terms.numerator;
      sum = sum - terms.log1p;
    }
  }
  write_sum<kPieces>((sum + log_of(product)) * P::direction, share, log_abs_det, workspace, rows, parts);
}

// A block has a chunk of the outer indices (samples, or their places in channels-last) and, where runs have one
// element, 32 features, one a lane; else one feature. It leaves kSums sums for each feature.
template <typename T, bool kLanesAreFeatures, typename P>
__global__ void __launch_bounds__(kThreads)
    per_feature_backward_kernel(const T* x, const T* grad_y, const accumulate_t<T>* grad_log_abs_det, T* grad_x,
                                const accumulate_t<T>* numbers, double* workspace, int64_t rows, int64_t row_size,
                                int64_t features, int64_t run, int64_t tiles, int64_t chunk_size) {
  using Real = accumulate_t<T>;
  constexpr int kWarps = kThreads / 32;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t chunk = blockIdx.x / tiles, tile = blockIdx.x % tiles;
  const int64_t feature = kLanesAreFeatures ? tile * 32 + lane : tile;
  const int64_t places = row_size / (features * run), outer = rows * places;
  const int64_t begin = chunk * chunk_size, end = min(begin + chunk_size, outer);
  Real sums[kSums] = {};
  if (feature < features) {
    const P p = load_parameters<P>(numbers, feature, features);
    const int64_t stop = kLanesAreFeatures ? end : begin * run + (end - begin) * run;
#pragma unroll 1  // unrolled, the loop of half precision spills on sm_90
    for (int64_t i = kLanesAreFeatures ? begin + warp : begin * run + threadIdx.x; i < stop;
         i += kLanesAreFeatures ? kWarps : kThreads) {
      const int64_t at = kLanesAreFeatures ? i : i / run;
      const int64_t element = (at * features + feature) * run + (kLanesAreFeatures ? 0 : i % run);
      const auto terms = feature_terms(static_cast<Real>(x[element]), static_cast<Real>(grad_y[element]),
                                       grad_log_abs_det[at / places], p);
      grad_x[element] = T(terms.gradient);
#pragma unroll
      for (int k = 0; k < kSums; ++k) sums[k] += terms.sums[k];
    }
  }
  __shared__ Real scratch[kSums][kWarps][32];
#pragma unroll
  for (int k = 0; k < kSums; ++k) scratch[k][warp][lane] = kLanesAreFeatures ? sums[k] : warp_sum(sums[k]);
  __syncthreads();
  if (warp >= kSums || feature >= features || (!kLanesAreFeatures && lane > 0)) return;
  double sum = 0;
  for (int w = 0; w < kWarps; ++w) sum += scratch[warp][w][lane];
  workspace[(chunk * kSums + warp) * features + feature] = sum;
}

// One thread a feature and parameter.
template <typename Number>
__global__ void __launch_bounds__(kThreads)
    parameter_gradient_kernel(const double* workspace, const Number* ratio, const Number* sharpness, Number* grads,
                              int64_t features, int64_t chunks) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= kSums * features) return;
  double sum = 0;
  for (int64_t c = 0; c < chunks; ++c) sum += workspace[c * kSums * features + i];
  const int64_t f = i % features;
  grads[i] = Number(parameter_gradient(int(i / features), sum, ratio[f], sharpness[f]));
}

// The parameters as they come: vectors of `Number`.
template <typename Number> struct Given {
  const Number *ratio, *sharpness, *u0, *t0;
  int64_t features;
};

template <typename P, typename Number, typename Real>
cudaError_t make_table(const Given<Number>& given, Real* numbers, cudaStream_t stream) {
  return GPU_LAUNCH((table_kernel<P, Number, Real>), unsigned((given.features + kThreads - 1) / kThreads), kThreads, 0,
                    stream, given.ratio, given.sharpness, given.u0, given.t0, numbers, given.features);
}

template <typename Number>
cudaError_t parameter_gradients(const double* workspace, const Given<Number>& given, void* grads, int64_t chunks,
                                cudaStream_t stream) {
  Number* const to = static_cast<Number*>(grads);
  return GPU_LAUNCH((parameter_gradient_kernel<Number>), unsigned((kSums * given.features + kThreads - 1) / kThreads),
                    kThreads, 0, stream, workspace, given.ratio, given.sharpness, to, given.features, chunks);
}

// Calls f with what is given, as float64 where it is wide, else as float32.
template <typename F>
cudaError_t with_given(const void* ratio, const void* sharpness, const void* u0, const void* t0, int64_t features,
                       bool wide, F f) {
  const auto as = [&](auto* type) {
    using Number = std::remove_pointer_t<decltype(type)>;
    const auto cast = [](const void* p) { return static_cast<const Number*>(p); };
    return f(Given<Number>{cast(ratio), cast(sharpness), cast(u0), cast(t0), features});
  };
  return wide ? as(static_cast<double*>(nullptr)) : as(static_cast<float*>(nullptr));
}

template <typename T, typename P>
cudaError_t per_feature_forward(const T* x, T* y, accumulate_t<T>* log_abs_det, double* workspace,
                                const accumulate_t<T>* numbers, int64_t rows, int64_t row_size, int64_t features,
                                int64_t run, cudaStream_t stream) {
  if (row_size <= kWarpRow) {
    const int log2 = threads_log2(row_size, kMostAccesses);
    return GPU_LAUNCH((per_feature_kernel<T, false, P>), blocks_of_rows(rows, log2), kThreads, 0, stream, x, y,
                      log_abs_det, workspace, numbers, rows, row_size, log2, features, run);
  }
  const int64_t pieces = pieces_of(row_size);
  const cudaError_t error =
      GPU_LAUNCH((per_feature_kernel<T, true, P>), unsigned(rows * pieces), kThreads, 0, stream, x, y, log_abs_det,
                 workspace, numbers, rows, row_size, unsigned(pieces), features, run);
  return error == cudaSuccess && pieces > 1 ? sum_pieces(workspace, log_abs_det, rows, pieces, stream) : error;
}

template <typename T, typename P>
cudaError_t per_feature_backward(const T* x, const T* grad_y, const accumulate_t<T>* grad_log, T* grad_x,
                                 const accumulate_t<T>* numbers, double* workspace, int64_t rows, int64_t row_size,
                                 int64_t features, int64_t run, cudaStream_t stream) {
  const int64_t chunk = outer_chunk(run), chunks = outer_chunks(rows, row_size, features, run);
  if (run == 1) {
    const int64_t tiles = (features + 31) / 32;
    return GPU_LAUNCH((per_feature_backward_kernel<T, true, P>), unsigned(chunks * tiles), kThreads, 0, stream, x,
                      grad_y, grad_log, grad_x, numbers, workspace, rows, row_size, features, run, tiles, chunk);
  }
  return GPU_LAUNCH((per_feature_backward_kernel<T, false, P>), unsigned(chunks * features), kThreads, 0, stream, x,
                    grad_y, grad_log, grad_x, numbers, workspace, rows, row_size, features, run, features, chunk);
}

}  // namespace
}  // namespace led::soft_relu
