// What the torch side and the kernels of soft-ReLU agree on: launchers and workspace.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

namespace led::soft_relu {

// A sample of more elements is shared by several blocks, which leave one sum each in the workspace.
constexpr int64_t kPieceSize = 8192;
constexpr int64_t pieces_of(int64_t row_size) { return (row_size + kPieceSize - 1) / kPieceSize; }

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
