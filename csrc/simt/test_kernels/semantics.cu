// Small kernels that use one part of CUDA's execution model each, correctly (wrong == 0) or not.
#include "common/gpu.h"
#include "common/shared_memory.h"

namespace cg = cooperative_groups;

namespace {

constexpr unsigned kAll = 0xffffffffu;

// Tiles of 8 lanes with masks of their own and different numbers of rounds.
__global__ void partial_masks(const float* x, float* y) {
  const int tile = threadIdx.x % 32 / 8;
  const unsigned mask = 0xffu << (8 * tile);
  float value = x[threadIdx.x];
  for (int round = 0; round <= tile; round++)
    for (int offset = 4; offset > 0; offset /= 2) value += __shfl_xor_sync(mask, value, offset, 8);
  y[threadIdx.x] = value;
}

// __syncwarp over half a warp orders nothing with the other half.
__global__ void partial_barrier(float* y, int wrong) {
  __shared__ float s[32];
  const int lane = threadIdx.x;
  s[lane] = (float)lane;
  __syncwarp(lane < 16 ? 0xffffu : 0xffff0000u);
  y[lane] = s[lane ^ (wrong ? 16 : 1)];
}

__global__ void votes(unsigned* y) {
  const int t = threadIdx.x;
  unsigned* row = y + 8 * t;
  row[0] = __ballot_sync(kAll, t % 3 == 0);
  row[1] = __match_any_sync(kAll, t / 4);
  row[2] = __reduce_add_sync(kAll, (unsigned)t);
  row[3] = (unsigned)__reduce_min_sync(kAll, t - 5);
  row[4] = (unsigned)__any_sync(kAll, t == 7);
  row[5] = (unsigned)__all_sync(kAll, t < 31);
  row[6] = (unsigned)__syncthreads_count(t < 5);
  row[7] = (unsigned)(__syncthreads_and(t < 32) + 2 * __syncthreads_or(t > 31));
}

__global__ void shuffles(const float* x, float* y) {
  const int t = threadIdx.x;
  const double wide = (double)x[t];
  y[4 * t] = __shfl_sync(kAll, x[t], t + 1, 16);
  y[4 * t + 1] = __shfl_up_sync(kAll, x[t], 3);
  y[4 * t + 2] = __shfl_down_sync(kAll, x[t], 5, 8);
  y[4 * t + 3] = (float)__shfl_xor_sync(kAll, wide, 9);
}

// Whole warps may leave before a barrier; single lanes may not leave before a shuffle that names them as a source.
__global__ void early_exit(float* y, int wrong) {
  if (wrong ? threadIdx.x % 32 >= 16 : threadIdx.x >= 64) return;
  float value = 1.f;
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(kAll, value, offset);
  __syncthreads();
  y[threadIdx.x] = value;
}

__global__ void divergent_barrier(float* y, int wrong) {
  if (wrong && threadIdx.x < 32) __syncthreads();
  else __syncthreads();
  y[threadIdx.x] = 1.f;
}

__global__ void divergent_shuffle(float* y, int wrong) {
  float value = 1.f;
  if (wrong && threadIdx.x < 16) value += __shfl_sync(kAll, value, 0);
  else value += __shfl_sync(kAll, value, 0);
  y[threadIdx.x] = value;
}

// A warp waits for lanes that wait at the block's barrier.
__global__ void deadlock(float* y, int wrong) {
  if (wrong && threadIdx.x < 16) __syncthreads();
  __syncwarp();
  y[threadIdx.x] = 1.f;
}

__global__ void outside_own_mask(float* y, int wrong) {
  if (threadIdx.x < 16 || wrong) __syncwarp(0xffffu);
  y[threadIdx.x] = 1.f;
}

__global__ void uninitialised(float* y, int wrong) {
  __shared__ float s[64];
  if (!wrong || threadIdx.x != 9) s[threadIdx.x] = 1.f;
  __syncthreads();
  y[threadIdx.x] = s[(threadIdx.x + 1) % 64];
}

__global__ void static_bounds(float* y, int shift) {
  __shared__ float s[64], other[64];
  s[threadIdx.x] = other[threadIdx.x] = 1.f;
  __syncthreads();
  y[threadIdx.x] = s[threadIdx.x + shift] + other[threadIdx.x];
}

__global__ void dynamic_bounds(float* y, int shift) {
  GPU_DYNAMIC_SHARED(float, s);
  s[threadIdx.x] = 1.f;
  __syncthreads();
  y[threadIdx.x] = s[threadIdx.x + shift];
}

__global__ void global_bounds(const float* x, float* y, int shift) { y[threadIdx.x] = x[threadIdx.x + shift]; }

__global__ void write_to_const(const float* x, float* y, int wrong) {
  if (wrong) const_cast<float*>(x)[threadIdx.x] = 0.f;
  y[threadIdx.x] = x[threadIdx.x];
}

// All threads add to shared memory, then all blocks to y[0].
__global__ void atomics(float* y, int wrong) {
  __shared__ float sum;
  if (threadIdx.x == 0) sum = 0.f;
  __syncthreads();
  if (wrong == 1) sum += 1.f;
  else atomicAdd(&sum, 1.f);
  __syncthreads();
  if (threadIdx.x != 0) return;
  if (wrong == 2) y[0] += sum;
  else atomicAdd(&y[0], sum);
  atomicMax(reinterpret_cast<int*>(&y[1]), (int)blockIdx.x);
  atomicCAS(reinterpret_cast<int*>(&y[2]), 0, 7);
}

__global__ void groups(const float* x, float* y, int wrong) {
  __shared__ float s[64];
  const cg::thread_block block = cg::this_thread_block();
  const auto tile = cg::tiled_partition<8>(block);
  s[block.thread_rank()] = x[block.thread_rank()];
  if (!wrong) tile.sync();
  float value = s[block.thread_rank() ^ 1];
  for (int offset = 4; offset > 0; offset /= 2) value += tile.shfl_xor(value, offset);
  value += (float)tile.ballot(tile.thread_rank() < 2) + (float)tile.any(0) + (float)tile.all(1);
  block.sync();
  if (tile.thread_rank() == 0) y[tile.meta_group_rank()] = value;
}

// Neighbours in one 4-byte word do not conflict; two writers of one half do.
__global__ void two_byte_accesses(__half* y, int wrong) {
  const int t = threadIdx.x;
  y[wrong ? t / 2 : t] = __float2half_rn((float)t);
  __syncthreads();
  if (t < 32) y[t] = __float2half_rn(__half2float(y[t]) + 1.f);
}

// Reverses 16-byte packs; each lane's last word is another's in the wrong variant.
__global__ void sixteen_byte_accesses(const led::Pack<float, 4>* x, led::Pack<float, 4>* y, int wrong) {
  const int t = threadIdx.x;
  const led::Pack<float, 4> pack = x[t];
  y[31 - t] = pack;
  if (wrong) reinterpret_cast<float*>(y)[4 * ((t + 1) % 32) + 3] = 0.f;
}

__global__ void misaligned(const float* x, float* y, int shift) {
  y[threadIdx.x] = reinterpret_cast<const float4*>(x + shift)[threadIdx.x].x;
}

// A shuffle tells where the data are but orders no memory.
__global__ void shuffle_orders_nothing(float* y, int wrong) {
  __shared__ float s[32];
  const int t = threadIdx.x;
  s[t] = (float)t;
  if (!wrong) __syncwarp();
  y[t] = s[__shfl_sync(kAll, t ^ 1, t)];
}

// Reduction as it was written before Volta.
__global__ void implicit_warp_synchrony(const float* x, float* y, int wrong) {
  __shared__ volatile float s[64];
  const int t = threadIdx.x;
  s[t] = x[t];
  s[t + 32] = 0.f;
  for (int offset = 16; offset > 0; offset /= 2) {
    if (!wrong) __syncwarp();
    const float sum = s[t] + s[t + offset];
    if (!wrong) __syncwarp();
    s[t] = sum;
  }
  if (t == 0) y[0] = s[0];
}

__global__ void blocks_are_unordered(float* y, int wrong) {
  y[blockIdx.x] = (float)blockIdx.x;
  y[8 + blockIdx.x] = wrong ? y[(blockIdx.x + 1) % 8] : 0.f;
}

// Columns of a tile: 33 words a row spread over the banks, 32 do not.
__global__ void banks(const float* x, float* y, int wrong) {
  GPU_DYNAMIC_SHARED(float, tile);
  const int t = threadIdx.x, pitch = wrong ? 32 : 33;
  for (int row = 0; row < 32; row++) tile[row * pitch + t] = x[row * 32 + t];
  __syncthreads();
  for (int row = 0; row < 32; row++) y[row * 32 + t] = tile[t * pitch + row];
}

__global__ void strided(const float* x, float* y, int stride) { y[threadIdx.x] = x[threadIdx.x * stride]; }

}  // namespace

extern "C" cudaError_t semantics(int which, int wrong, const float* x, float* y, cudaStream_t stream) {
  switch (which) {
    case 0: return GPU_LAUNCH(partial_masks, 1, 64, 0, stream, x, y);
    case 1: return GPU_LAUNCH(partial_barrier, 1, 32, 0, stream, y, wrong);
    case 2: return GPU_LAUNCH(votes, 1, 32, 0, stream, reinterpret_cast<unsigned*>(y));
    case 3: return GPU_LAUNCH(shuffles, 1, 32, 0, stream, x, y);
    case 4: return GPU_LAUNCH(early_exit, 1, 128, 0, stream, y, wrong);
    case 5: return GPU_LAUNCH(divergent_barrier, 1, 64, 0, stream, y, wrong);
    case 6: return GPU_LAUNCH(divergent_shuffle, 1, 32, 0, stream, y, wrong);
    case 7: return GPU_LAUNCH(deadlock, 1, 32, 0, stream, y, wrong);
    case 8: return GPU_LAUNCH(outside_own_mask, 1, 32, 0, stream, y, wrong);
    case 9: return GPU_LAUNCH(uninitialised, 1, 64, 0, stream, y, wrong);
    case 10: return GPU_LAUNCH(static_bounds, 1, 64, 0, stream, y, wrong);
    case 11: return GPU_LAUNCH(dynamic_bounds, 1, 64, 64 * sizeof(float), stream, y, wrong);
    case 12: return GPU_LAUNCH(global_bounds, 1, 64, 0, stream, x, y, wrong ? 256 : 0);
    case 13: return GPU_LAUNCH(write_to_const, 1, 64, 0, stream, x, y, wrong);
    case 14: return GPU_LAUNCH(atomics, 3, 70, 0, stream, y, wrong);
    case 15: return GPU_LAUNCH(groups, 1, 64, 0, stream, x, y, wrong);
    case 16: return GPU_LAUNCH(two_byte_accesses, 1, 64, 0, stream, reinterpret_cast<__half*>(y), wrong);
    case 17:
      return GPU_LAUNCH(sixteen_byte_accesses, 1, 32, 0, stream, reinterpret_cast<const led::Pack<float, 4>*>(x),
                        reinterpret_cast<led::Pack<float, 4>*>(y), wrong);
    case 18: return GPU_LAUNCH(misaligned, 1, 32, 0, stream, x, y, wrong);
    case 19: return GPU_LAUNCH(shuffle_orders_nothing, 1, 32, 0, stream, y, wrong);
    case 20: return GPU_LAUNCH(implicit_warp_synchrony, 1, 32, 0, stream, x, y, wrong);
    case 21: return GPU_LAUNCH(blocks_are_unordered, 8, 1, 0, stream, y, wrong);
    default: return cudaErrorInvalidValue;
  }
}

extern "C" cudaError_t semantics_banks(const float* x, float* y, int wrong, cudaStream_t stream) {
  return GPU_LAUNCH(banks, 1, 32, 32 * 33 * sizeof(float), stream, x, y, wrong);
}

extern "C" cudaError_t semantics_strided(const float* x, float* y, int stride, cudaStream_t stream) {
  return GPU_LAUNCH(strided, 1, 32, 0, stream, x, y, stride);
}

extern "C" cudaError_t semantics_configuration(float* y, int blocks, int threads, int shared_bytes, int opt_in,
                                               cudaStream_t stream) {
  cudaError_t error = cudaSuccess;
  if (opt_in == 1)
    error = cudaFuncSetAttribute(dynamic_bounds, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
  if (opt_in == 2) error = led::allow_dynamic_shared(dynamic_bounds, size_t(shared_bytes));
  if (error != cudaSuccess) return error;
  return GPU_LAUNCH(dynamic_bounds, blocks, threads, shared_bytes, stream, y, 0);
}
