// What the kernels' side of the executor (simt.h) asks of its runtime.
#pragma once
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace simt {

// A CUDA thread's own view of the launch.
struct Thread {
  uint3 thread_index, block_index;
  dim3 block_dim, grid_dim;
  unsigned rank, warp, lane;  // rank: linear index in the block
  void* dynamic_shared;
};

struct Site {
  const char* file;
  int line;
};

enum class BarrierVote { kNone, kAnd, kOr, kCount };

enum class WarpOp { kSync, kShuffle, kBallot, kAny, kAll, kMatchAny, kAdd, kMin, kMax, kAnd, kOr, kXor };

struct Launch {
  dim3 grid, block;
  size_t dynamic_bytes;
  const void* kernel;         // identity of the kernel, for cudaFuncSetAttribute
  void (*body)(const void*);  // runs one thread
  const void* parameters;     // argument of `body`
  size_t parameter_bytes;
};

// Constant within a thread: the compiler may keep it over barriers.
__attribute__((const)) const Thread* self();

int block_barrier(BarrierVote vote, bool predicate, Site site);
uint64_t warp_collective(WarpOp op, unsigned mask, uint64_t value, unsigned source_lane, Site site);
uint64_t warp_reduce(WarpOp op, unsigned mask, int64_t value, bool is_signed, Site site);
unsigned active_mask();
void on_atomic(const void* address, size_t size, void* code);

cudaError_t run(const Launch& launch);

// Every launch expression compiled into the library announces itself when the library is loaded, so that a test can
// tell which it has never executed.
int register_launch(const char* function);
void mark_launched(int id);

}  // namespace simt
