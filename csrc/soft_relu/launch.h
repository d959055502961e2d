// What the torch side and the kernels of soft-ReLU agree on: launchers and workspace.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

namespace led::soft_relu {

// A sample of more elements is shared by several blocks, which leave one sum each in the workspace.
constexpr int64_t kPieceSize = 8192;
constexpr int64_t pieces_of(int64_t row_size) { return (row_size + kPieceSize - 1) / kPieceSize; }

// Parameters per feature: `features` of them, whose elements lie side by side in runs, with places of row_size /
// (features * run) between two samples. The backward pass gives blocks chunks of rows * places outer indices.
constexpr int64_t outer_chunk(int64_t run) { return run == 1 ? 256 : run < 8192 ? 8192 / run : 1; }
constexpr int64_t outer_chunks(int64_t rows, int64_t row_size, int64_t features, int64_t run) {
  const int64_t outer = rows * (row_size / (features * run)), chunk = outer_chunk(run);
  return (outer + chunk - 1) / chunk;
}
constexpr int64_t kTableRows = 20;  // numbers of a feature, at most

}  // namespace led::soft_relu

// x and y: rows * row_size elements of `dtype`. log_abs_det: rows elements, float64 for float64 and else float32.
// workspace: rows * pieces_of(row_size) elements where that is more than rows; else it may be null.
extern "C" cudaError_t led_fast_soft_relu_forward(const void* x, void* y, void* log_abs_det, double* workspace,
                                                  int64_t rows, int64_t row_size, double alpha, double beta, double u0,
                                                  double t0, int dtype, cudaStream_t stream);

// A null grad_y or grad_log_abs_det stands for zeros.
extern "C" cudaError_t led_fast_soft_relu_backward(const void* x, const void* grad_y, const void* grad_log_abs_det,
                                                   void* grad_x, int64_t rows, int64_t row_size, double alpha,
                                                   double beta, double u0, int dtype, cudaStream_t stream);

// The same for x = L^{-1}(y), whose log_abs_det is that of the inverse map.
extern "C" cudaError_t led_fast_soft_relu_inverse(const void* y, void* x, void* log_abs_det, double* workspace,
                                                  int64_t rows, int64_t row_size, double alpha, double beta, double u0,
                                                  double t0, int dtype, cudaStream_t stream);

extern "C" cudaError_t led_fast_soft_relu_inverse_backward(const void* y, const void* grad_x,
                                                           const void* grad_log_abs_det, void* grad_y, int64_t rows,
                                                           int64_t row_size, double alpha, double beta, double u0,
                                                           double t0, int dtype, cudaStream_t stream);

// With parameters per feature: vectors of `features` elements, of float64 where they are wide, else of float32.
// numbers: kTableRows * features elements of log_abs_det's dtype. `inverse`: the map is the inverse one.
extern "C" cudaError_t led_fast_soft_relu_per_feature(const void* x, void* y, void* log_abs_det, double* workspace,
                                                      const void* ratio, const void* sharpness, const void* u0,
                                                      const void* t0, bool wide, void* numbers, int64_t rows,
                                                      int64_t row_size, int64_t features, int64_t run, bool inverse,
                                                      int dtype, cudaStream_t stream);

// workspace: 4 * features * outer_chunks(...) elements. grads: 4 * features elements of the parameters' dtype, to
// ratio, sharpness, u0 and t0.
extern "C" cudaError_t led_fast_soft_relu_per_feature_backward(
    const void* x, const void* grad_y, const void* grad_log_abs_det, void* grad_x, double* workspace, const void* ratio,
    const void* sharpness, const void* u0, const void* t0, bool wide, void* numbers, void* grads, int64_t rows,
    int64_t row_size, int64_t features, int64_t run, bool inverse, int dtype, cudaStream_t stream);
