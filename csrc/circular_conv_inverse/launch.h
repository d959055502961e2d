// What the torch side and the kernels that undo circular convolutions agree on: launchers and layouts.
//
// F = rows * (columns / 2 + 1) frequencies in the order of torch.fft.rfft2, T taps. Numbers are of `dtype`, complex
// ones are two of them. Spectra: (samples, channels, F) complex. Inverse symbols: (channels, channels, F) complex.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

// weight: (channels, channels, kernel_rows, kernel_columns); log_abs_det: one number, of the inverse map. Workspaces:
// phases, T * F complex numbers, and logs, F doubles.
// cudaErrorInvalidValue where a matrix of `channels` does not fit in the device's shared memory.
extern "C" cudaError_t led_fast_circular_conv_invert(const void* weight, void* inverses, void* log_abs_det,
                                                     void* phases, double* logs, int channels, int64_t kernel_rows,
                                                     int64_t kernel_columns, int64_t rows, int64_t columns, int dtype,
                                                     cudaStream_t stream);

// solved = inverses * spectrum at every frequency, or their adjoints * spectrum.
extern "C" cudaError_t led_fast_circular_conv_solve(const void* spectrum, const void* inverses, void* solved,
                                                    int64_t samples, int channels, int64_t frequencies, bool adjoint,
                                                    int dtype, cudaStream_t stream);

// The gradient with respect to the weight, of its shape, from that with respect to y's spectrum (null: 0), x's
// spectrum, and the gradient with respect to log_abs_det (null: 0). Workspaces: phases as above, and products, channels
// * channels * F complex numbers.
extern "C" cudaError_t led_fast_circular_conv_weight_gradient(const void* grad_spectrum, const void* solved,
                                                              const void* inverses, const void* grad_log_abs_det,
                                                              void* grad_weight, void* phases, void* products,
                                                              int64_t samples, int channels, int64_t kernel_rows,
                                                              int64_t kernel_columns, int64_t rows, int64_t columns,
                                                              int dtype, cudaStream_t stream);
