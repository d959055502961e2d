// Launchers of Fourier features' CUDA kernels. They return the error of the launch and do not wait.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

// x: rows * dimension elements of `dtype`, like all else; projection: dimension * directions; features: rows *
// (dimension + 2 * directions).
extern "C" cudaError_t led_fast_fourier_features(const void* x, const void* projection, void* features, int64_t rows,
                                                 int64_t dimension, int64_t directions, int dtype, cudaStream_t stream);

// grad: as many elements as features. grad_x: as many as x.
extern "C" cudaError_t led_fast_fourier_features_backward(const void* grad, const void* features,
                                                          const void* projection, void* grad_x, int64_t rows,
                                                          int64_t dimension, int64_t directions, int dtype,
                                                          cudaStream_t stream);
