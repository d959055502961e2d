// What the torch side and the kernels of the circulant log-determinant agree on: launcher and workspaces.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

// weight and gradient: (batch, channels, channels, kernel_rows, kernel_columns); logdet: (batch); all of `dtype`.
// A null gradient asks for none. Workspaces, F being the number of frequencies of the half spectrum and T the taps:
//   phases:   F * ((T + 1) / 2) * 2 elements of `dtype`
//   logs:     batch * F doubles
//   inverses: batch * chunk * channels * channels * 2 elements of `dtype`, or null where gradient is: so many
//             frequencies are inverted before their part of the gradient is added up
// cudaErrorInvalidValue where a matrix of `channels` does not fit in the device's shared memory.
extern "C" cudaError_t led_fast_circulant_logdet(const void* weight, void* logdet, void* gradient, void* phases,
                                                 double* logs, void* inverses, int64_t batch, int channels,
                                                 int64_t kernel_rows, int64_t kernel_columns, int64_t rows,
                                                 int64_t columns, int64_t chunk, int dtype, cudaStream_t stream);
