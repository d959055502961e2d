// The staircase on the GPU, element by element. Samples are shared out among threads as common/rows.cuh says.
#include "staircase/device.h"
#include "staircase/device_backward.h"

namespace led::staircase {
namespace {

template <typename Real>
__device__ __forceinline__ Local<Real> local_at(Real x, const Problem<Real>& p, int64_t feature) {
  const Real m = __ldg(p.slope + feature);
  Local<Real> at{m * x, m, 0};
  for (int64_t k = 0; k < p.steps; ++k) add_step(at, x, p.step(feature, k));
  return at;
}

template <typename T, bool kPieces>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const T* x, T* y, accumulate_t<T>* log_abs_det, double* workspace, Problem<accumulate_t<T>> p,
                   unsigned parts) {
  using Real = accumulate_t<T>;
  const Share share = share_of<kPieces>(p.sample_size(), kPieceSize, parts);
  Real sum = 0;
  if (share.row < p.samples) {
    const int64_t start = share.row * p.sample_size();
    for (int64_t i = share.begin + share.thread; i < share.end; i += share.threads) {
      const Local<Real> at = local_at(static_cast<Real>(x[start + i]), p, p.feature_of(i));
      y[start + i] = T(at.value);
      sum += log_of(at.derivative);
    }
  }
  write_sum<kPieces>(sum, share, log_abs_det, workspace, p.samples, parts);
}

// One block a feature: the places where its staircase bends, in order, and its values there.
template <typename Real> __global__ void __launch_bounds__(kThreads) table_kernel(Real* table, Problem<Real> p) {
  const int64_t feature = blockIdx.x, count = kPlaces * p.steps;
  Real *const places = table + feature * table_size(p.steps), *const values = places + count + 2;
  const auto place = [&](int64_t i) {
    const int64_t k = feature * p.steps + i / kPlaces;
    return place_of(int(i % kPlaces), p.centers[k], p.steepness[k]);
  };
  for (int64_t i = threadIdx.x; i < count; i += kThreads) {
    const Real mine = place(i);
    int64_t rank = 0;
    for (int64_t j = 0; j < count; ++j) {
      const Real other = place(j);
      rank += other < mine || (other == mine && j < i);
    }
    places[1 + rank] = mine;
    values[1 + rank] = local_at(mine, p, feature).value;
  }
  if (threadIdx.x > 0) return;
  Real reach = 0, steepest = 0;
  for (int64_t k = feature * p.steps; k < (feature + 1) * p.steps; ++k) {
    reach += p.heights[k];
    steepest = p.steepness[k] > steepest ? p.steepness[k] : steepest;
  }
  places[0] = values[0] = -Real(INFINITY);
  places[count + 1] = values[count + 1] = Real(INFINITY);
  values[count + 2] = p.slope[feature];
  values[count + 3] = reach;
  values[count + 4] = Precision<Real>::root / steepest;
}

// How many of the values lie at y or below.
template <typename Real> __device__ __forceinline__ int64_t places_below(Real y, const Real* values, int64_t count) {
  int64_t low = 0, high = count;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (values[1 + middle] <= y) low = middle + 1;
    else high = middle;
  }
  return low;
}

template <typename T, bool kPieces>
__global__ void __launch_bounds__(kThreads)
    inverse_kernel(const T* y, T* x, accumulate_t<T>* kept, accumulate_t<T>* log_abs_det, double* workspace,
                   const accumulate_t<T>* table, Problem<accumulate_t<T>> p, unsigned parts) {
  using Real = accumulate_t<T>;
  const Share share = share_of<kPieces>(p.sample_size(), kPieceSize, parts);
  Real sum = 0;
  if (share.row < p.samples) {
    const int64_t start = share.row * p.sample_size(), count = kPlaces * p.steps;
    for (int64_t i = share.begin + share.thread; i < share.end; i += share.threads) {
      const int64_t feature = p.feature_of(i);
      const Real target = static_cast<Real>(y[start + i]);
      const Real *const places = table + feature * table_size(p.steps), *const values = places + count + 2;
      const Scale<Real> scale{values[count + 2], values[count + 3], values[count + 4]};
      const int64_t k = places_below(target, values, count);
      Search<Real> search =
          led::staircase::start(Bracket<Real>{places[k], places[k + 1], values[k], values[k + 1]}, target, scale);
      Real derivative = scale.slope;
      for (int step = 0; step < Precision<Real>::most_steps; ++step)
        if (advance(search, derivative, target, local_at(search.x, p, feature), scale)) break;
      const Real found = solution(search.x, derivative);
      x[start + i] = T(found);
      if (kept) kept[start + i] = found;
      sum -= log_of(derivative);
    }
  }
  write_sum<kPieces>(sum, share, log_abs_det, workspace, p.samples, parts);
}

template <typename T>
cudaError_t forward(const T* x, T* y, accumulate_t<T>* log_abs_det, double* workspace,
                    const Problem<accumulate_t<T>>& p, cudaStream_t stream) {
  if (p.sample_size() <= kWarpSample) {
    const int log2 = threads_log2(p.sample_size(), kMostElements);
    return GPU_LAUNCH((forward_kernel<T, false>), blocks_of_rows(p.samples, log2), kThreads, 0, stream, x, y,
                      log_abs_det, workspace, p, log2);
  }
  const int64_t pieces = pieces_of(p.sample_size());
  const cudaError_t error = GPU_LAUNCH((forward_kernel<T, true>), unsigned(p.samples * pieces), kThreads, 0, stream, x,
                                       y, log_abs_det, workspace, p, unsigned(pieces));
  return error == cudaSuccess && pieces > 1 ? sum_pieces(workspace, log_abs_det, p.samples, pieces, stream) : error;
}

template <typename T>
cudaError_t inverse(const T* y, T* x, accumulate_t<T>* kept, accumulate_t<T>* log_abs_det, double* workspace,
                    accumulate_t<T>* table, const Problem<accumulate_t<T>>& p, cudaStream_t stream) {
  using Real = accumulate_t<T>;
  cudaError_t error = GPU_LAUNCH((table_kernel<Real>), unsigned(p.features), kThreads, 0, stream, table, p);
  if (error != cudaSuccess) return error;
  if (p.sample_size() <= kWarpSample) {
    const int log2 = threads_log2(p.sample_size(), kMostElements);
    return GPU_LAUNCH((inverse_kernel<T, false>), blocks_of_rows(p.samples, log2), kThreads, 0, stream, y, x, kept,
                      log_abs_det, workspace, table, p, log2);
  }
  const int64_t pieces = pieces_of(p.sample_size());
  error = GPU_LAUNCH((inverse_kernel<T, true>), unsigned(p.samples * pieces), kThreads, 0, stream, y, x, kept,
                     log_abs_det, workspace, table, p, unsigned(pieces));
  return error == cudaSuccess && pieces > 1 ? sum_pieces(workspace, log_abs_det, p.samples, pieces, stream) : error;
}

template <typename Real>
Problem<Real> problem_of(const void* centers, const void* heights, const void* steepness, const void* slope,
                         int64_t samples, int64_t features, int64_t inner, int64_t steps, bool interleaved) {
  const auto real = [](const void* pointer) { return static_cast<const Real*>(pointer); };
  return {real(centers), real(heights), real(steepness), real(slope), samples, features, inner, steps, interleaved};
}

}  // namespace
}  // namespace led::staircase

using namespace led;
using namespace led::staircase;

extern "C" cudaError_t led_fast_staircase_forward(const void* x, void* y, void* log_abs_det, double* workspace,
                                                  const void* centers, const void* heights, const void* steepness,
                                                  const void* slope, int64_t samples, int64_t features, int64_t inner,
                                                  int64_t steps, bool interleaved, int dtype, cudaStream_t stream) {
  if (samples * features * inner == 0) return cudaSuccess;
  return dispatch(dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    using Real = accumulate_t<T>;
    return forward(static_cast<const T*>(x), static_cast<T*>(y), static_cast<Real*>(log_abs_det), workspace,
                   problem_of<Real>(centers, heights, steepness, slope, samples, features, inner, steps, interleaved),
                   stream);
  });
}

extern "C" cudaError_t led_fast_staircase_inverse(const void* y, void* x, void* kept, void* log_abs_det,
                                                  double* workspace, void* table, const void* centers,
                                                  const void* heights, const void* steepness, const void* slope,
                                                  int64_t samples, int64_t features, int64_t inner, int64_t steps,
                                                  bool interleaved, int dtype, cudaStream_t stream) {
  if (samples * features * inner == 0) return cudaSuccess;
  return dispatch(dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    using Real = accumulate_t<T>;
    return inverse(static_cast<const T*>(y), static_cast<T*>(x), static_cast<Real*>(kept),
                   static_cast<Real*>(log_abs_det), workspace, static_cast<Real*>(table),
                   problem_of<Real>(centers, heights, steepness, slope, samples, features, inner, steps, interleaved),
                   stream);
  });
}

extern "C" cudaError_t led_fast_staircase_backward(const void* x, const void* grad_value, const void* grad_log_abs_det,
                                                   void* grad_x, void* grad_centers, void* grad_heights,
                                                   void* grad_steepness, void* grad_slope, double* workspace,
                                                   const void* centers, const void* heights, const void* steepness,
                                                   const void* slope, int64_t samples, int64_t features, int64_t inner,
                                                   int64_t steps, bool interleaved, bool of_inverse, int dtype,
                                                   cudaStream_t stream) {
  if (samples * features * inner == 0) return cudaSuccess;
  return dispatch(dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    using Real = accumulate_t<T>;
    const auto p = problem_of<Real>(centers, heights, steepness, slope, samples, features, inner, steps, interleaved);
    const int64_t slices = slices_of(samples * inner);
    const auto launch = [&](auto kernel) {
      return GPU_LAUNCH(kernel, unsigned(features * slices), kSliceThreads, 0, stream, static_cast<const T*>(x),
                        static_cast<const T*>(grad_value), static_cast<const Real*>(grad_log_abs_det),
                        static_cast<T*>(grad_x), workspace, p, slices);
    };
    cudaError_t error = cudaErrorInvalidValue;
    if constexpr (std::is_same_v<T, Real>) {
      error = of_inverse ? launch(backward_kernel<T, true>) : launch(backward_kernel<T, false>);
    } else if (!of_inverse) {
      error = launch(backward_kernel<T, false>);
    }
    if (error != cudaSuccess) return error;
    return GPU_LAUNCH((sum_slices_kernel<Real>), blocks_of_rows(features * sums_of_steps(steps), 5), kThreads, 0,
                      stream, workspace, static_cast<Real*>(grad_centers), static_cast<Real*>(grad_heights),
                      static_cast<Real*>(grad_steepness), static_cast<Real*>(grad_slope), p, slices);
  });
}
