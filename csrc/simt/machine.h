// The state of the executor: the launch that runs, its threads, and whose turn it is.
#pragma once
#include <vector>

#include "simt/fiber.h"
#include "simt/runtime.h"

namespace simt {

constexpr unsigned kWarpSize = 32;
constexpr unsigned kMaxThreads = 1024;

enum class Schedule { kForward, kReverse, kRandom };

struct Options {
  Schedule schedule = Schedule::kForward;  // order of the threads of a block, and of the blocks of a grid
  uint64_t seed = 1;
  int preempt_permille = 0;  // check build: how often a memory access ends the thread's turn
  bool count_traffic = false;
};

enum class Status : uint8_t { kReady, kAtBarrier, kAtCollective, kDone };

struct CudaThread {
  Thread view;
  Fiber fiber;
  Status status;
  Site site;  // of the barrier or collective it waits at

  BarrierVote vote;
  bool predicate;
  int vote_result;

  WarpOp op;
  unsigned mask, source_lane;
  uint64_t value, result;
  bool is_signed;

  // Happens-before: the block barriers passed, and what is known of each lane of the warp.
  uint32_t epoch;
  uint32_t clock[kWarpSize];
};

struct Machine {
  Options options;
  Launch launch;
  CudaThread threads[kMaxThreads];
  unsigned thread_count, alive, at_barrier;
  CudaThread* current;  // null outside of kernels
  std::vector<CudaThread*> ready;
  char* dynamic_shared;
  uint32_t serial, launch_serial, block_serial;  // the present launch's and block's, drawn from one counter
  bool aborting;                                 // going on would be undefined: the launch ends
  uint64_t random_state;

  // Threads of a warp that exist.
  unsigned lanes_of(unsigned warp) const {
    const unsigned rest = thread_count - warp * kWarpSize;
    return rest < kWarpSize ? rest : kWarpSize;
  }
  uint64_t random();
  void make_ready(CudaThread& thread);
  void end_turn();        // of the current thread, which waits or is ready again
  void abandon_launch();  // called by the current thread; does not return to it
};

extern Machine machine;

// collectives.cpp: an exit can be what a barrier or collective of the others was waiting for.
void on_thread_exit(const CudaThread& thread);

}  // namespace simt
