// common/reduce.cuh and common/rows.cuh as operators use them: row sums, twice in a row over the same scratch, and of
// rows that are shared out.
#include "common/rows.cuh"

namespace {

template <typename T, int kThreads>
__global__ void row_sums(const T* x, led::accumulate_t<T>* sums, led::accumulate_t<T>* squares, int64_t columns) {
  using A = led::accumulate_t<T>;
  __shared__ A scratch[kThreads / 32];
  const T* row = x + blockIdx.x * columns;
  A sum = 0, square = 0;
  for (int64_t i = threadIdx.x; i < columns; i += kThreads) {
    const A value = static_cast<A>(row[i]);
    sum += value;
    square += value * value;
  }
  sum = led::block_sum<kThreads>(sum, scratch);
  __syncthreads();
  square = led::block_sum<kThreads>(square, scratch);
  if (threadIdx.x == 0) {
    sums[blockIdx.x] = sum;
    squares[blockIdx.x] = square;
  }
}

template <typename T>
cudaError_t launch_row_sums(const void* x, void* sums, void* squares, int rows, int64_t columns, int threads,
                            cudaStream_t stream) {
  using A = led::accumulate_t<T>;
  const T* in = static_cast<const T*>(x);
  A *out = static_cast<A*>(sums), *out2 = static_cast<A*>(squares);
  switch (threads) {
    case 32: return GPU_LAUNCH((row_sums<T, 32>), rows, 32, 0, stream, in, out, out2, columns);
    case 96: return GPU_LAUNCH((row_sums<T, 96>), rows, 96, 0, stream, in, out, out2, columns);
    case 1024: return GPU_LAUNCH((row_sums<T, 1024>), rows, 1024, 0, stream, in, out, out2, columns);
    default: return cudaErrorInvalidValue;
  }
}

template <bool kPieces>
__global__ void __launch_bounds__(led::kThreads)
    shared_rows(const float* x, float* sums, double* workspace, int64_t rows, int64_t columns, int64_t piece_size,
                unsigned parts) {
  const led::Share share = led::share_of<kPieces>(columns, piece_size, parts);
  float sum = 0;
  if (share.row < rows)
    for (int64_t i = share.begin + share.thread; i < share.end; i += share.threads) sum += x[share.row * columns + i];
  led::write_sum<kPieces>(sum, share, sums, workspace, rows, parts);
}

}  // namespace

// In pieces of so many columns, or with at most so many columns a thread.
extern "C" cudaError_t reduce_pieces(const float* x, float* sums, double* workspace, int64_t rows, int64_t columns,
                                     int64_t piece_size, cudaStream_t stream) {
  const int64_t pieces = (columns + piece_size - 1) / piece_size;
  const cudaError_t error = GPU_LAUNCH((shared_rows<true>), unsigned(rows * pieces), led::kThreads, 0, stream, x, sums,
                                       workspace, rows, columns, piece_size, unsigned(pieces));
  if (error != cudaSuccess || pieces == 1) return error;
  return led::sum_pieces(workspace, sums, rows, pieces, stream);
}

extern "C" cudaError_t reduce_narrow_rows(const float* x, float* sums, int64_t rows, int64_t columns, int most,
                                          cudaStream_t stream) {
  const int log2 = led::threads_log2(columns, most);
  double* const none = nullptr;
  return GPU_LAUNCH((shared_rows<false>), led::blocks_of_rows(rows, log2), led::kThreads, 0, stream, x, sums, none,
                    rows, columns, columns, log2);
}

extern "C" cudaError_t reduce_row_sums(int dtype, const void* x, void* sums, void* squares, int rows, int64_t columns,
                                       int threads, cudaStream_t stream) {
  switch (dtype) {
    case 0: return launch_row_sums<float>(x, sums, squares, rows, columns, threads, stream);
    case 1: return launch_row_sums<double>(x, sums, squares, rows, columns, threads, stream);
    case 2: return launch_row_sums<__half>(x, sums, squares, rows, columns, threads, stream);
    case 3: return launch_row_sums<__nv_bfloat16>(x, sums, squares, rows, columns, threads, stream);
    default: return cudaErrorInvalidValue;
  }
}
