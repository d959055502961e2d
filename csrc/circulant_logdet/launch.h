// What the torch side and the kernels of the circulant log-determinant agree on: launcher and workspaces.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>

// Up to so many channels, a warp has the matrix in registers; else a block in shared memory.
constexpr int64_t warp_channels(int64_t bytes_of_real) { return bytes_of_real == 4 ? 32 : 16; }

// The size of the chunks, as equal as can be, in which frequencies are taken at most so many at a time.
constexpr int64_t balanced_chunk(int64_t frequencies, int64_t most) {
  const int64_t chunks = (frequencies + most - 1) / most;
  return (frequencies + chunks - 1) / chunks;
}
static_assert(balanced_chunk(514, 256) == 172 && balanced_chunk(514, 512) == 257, "no chunk of two");
static_assert(balanced_chunk(514, 514) == 514 && balanced_chunk(5, 1) == 1, "one chunk, and chunks of one");

// weight and gradient: (batch, channels, channels, kernel_rows, kernel_columns); logdet: (batch); all of `dtype`.
// A null gradient asks for none. Workspaces, F being the number of frequencies of the half spectrum and T the taps:
//   phases:   F * ((T + 1) / 2) * 2 elements of `dtype`
//   folded:   batch * channels * channels * ((T + 1) / 2) * 2 elements of `dtype`, or null above warp_channels
//   logs:     batch * F doubles
//   inverses: batch * chunk * channels * channels * 2 elements of `dtype`, or null where gradient is: so many
//             frequencies are inverted before their part of the gradient is added up
// cudaErrorInvalidValue where a matrix of `channels` does not fit in the device's shared memory.
extern "C" cudaError_t led_fast_circulant_logdet(const void* weight, void* logdet, void* gradient, void* phases,
                                                 void* folded, double* logs, void* inverses, int64_t batch,
                                                 int channels, int64_t kernel_rows, int64_t kernel_columns,
                                                 int64_t rows, int64_t columns, int64_t chunk, int dtype,
                                                 cudaStream_t stream);
