// Runs a launch: block after block, its threads in turns that end at barriers and collectives.
#include "simt/machine.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <numeric>

#include "simt/cuda_api.h"
#include "simt/image.h"
#include "simt/reports.h"
#include "simt/traffic.h"
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

namespace simt {

Machine machine;

const Thread* self() { return &machine.current->view; }

unsigned active_mask() { return 1u << machine.current->view.lane; }  // CUDA promises no more than that

uint64_t Machine::random() {  // xorshift64
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return random_state;
}

void Machine::make_ready(CudaThread& thread) {
  thread.status = Status::kReady;
  ready.push_back(&thread);
}

void Machine::end_turn() {
  CudaThread& thread = *current;
  current = nullptr;
  thread.fiber.suspend();
}

void Machine::abandon_launch() {
  aborting = true;
  current->status = Status::kDone;
  end_turn();
}

namespace {

void thread_main() {
  CudaThread& thread = *machine.current;
  thread.fiber.on_entry();
  machine.launch.body(machine.launch.parameters);
  thread.status = Status::kDone;
  machine.alive--;
  on_thread_exit(thread);
  machine.current = nullptr;
  thread.fiber.finish();
}

void take_turn(CudaThread& thread) {
  machine.current = &thread;
  thread.fiber.resume();
}

void report_deadlock() {
  std::string text = "deadlock: no thread can go on";
  int shown = 0;
  const CudaThread* previous = nullptr;
  for (unsigned i = 0; i < machine.thread_count && shown < 4; i++) {
    const CudaThread& thread = machine.threads[i];
    if (thread.status == Status::kDone) continue;
    if (previous && previous->status == thread.status && previous->site.line == thread.site.line) continue;
    previous = &thread;
    shown++;
    text += "; " + thread_name(thread.view) + " waits at " + site_place(thread.site);
    if (thread.status == Status::kAtCollective) text += format(" with mask %08x", thread.mask);
  }
  report(text);
}

void start_threads(uint64_t block) {
  const dim3 grid = machine.launch.grid, dim = machine.launch.block;
  machine.alive = machine.thread_count;
  machine.at_barrier = 0;
  machine.ready.clear();
  for (unsigned rank = 0; rank < machine.thread_count; rank++) {
    CudaThread& thread = machine.threads[rank];
    Thread& view = thread.view;
    view.thread_index = make_uint3(rank % dim.x, rank / dim.x % dim.y, rank / dim.x / dim.y);
    view.block_index = make_uint3((unsigned)(block % grid.x), (unsigned)(block / grid.x % grid.y),
                                  (unsigned)(block / grid.x / grid.y));
    view.block_dim = dim;
    view.grid_dim = grid;
    view.rank = rank;
    view.warp = rank / kWarpSize;
    view.lane = rank % kWarpSize;
    view.dynamic_shared = machine.dynamic_shared;
    thread.epoch = 0;
    memset(thread.clock, 0, sizeof thread.clock);
    thread.clock[view.lane] = 1;
    thread.fiber.restart(thread_main);
    machine.make_ready(thread);
  }
}

void run_block(uint64_t block) {
  machine.block_serial = ++machine.serial;
  start_threads(block);
  const Schedule schedule = machine.options.schedule;
  std::vector<CudaThread*> round;
  while (machine.alive && !machine.aborting) {
    if (machine.ready.empty()) return report_deadlock();
    if (schedule == Schedule::kRandom) {
      std::swap(machine.ready[machine.random() % machine.ready.size()], machine.ready.back());
      CudaThread* next = machine.ready.back();
      machine.ready.pop_back();
      take_turn(*next);
      continue;
    }
    round.swap(machine.ready);
    machine.ready.clear();
    std::sort(round.begin(), round.end());
    if (schedule == Schedule::kReverse) std::reverse(round.begin(), round.end());
    for (CudaThread* thread : round) {
      if (machine.aborting) return;
      take_turn(*thread);
    }
  }
}

std::vector<uint64_t> block_order(uint64_t blocks) {
  std::vector<uint64_t> order(blocks);
  std::iota(order.begin(), order.end(), 0);
  if (machine.options.schedule == Schedule::kReverse) std::reverse(order.begin(), order.end());
  if (machine.options.schedule == Schedule::kRandom)
    for (uint64_t i = blocks; i > 1; i--) std::swap(order[i - 1], order[machine.random() % i]);
  return order;
}

// All bits set: a NaN in every floating-point type.
void poison_shared_memory() {
  if (machine.dynamic_shared) memset(machine.dynamic_shared, 0xff, machine.launch.dynamic_bytes);
  memset(reinterpret_cast<void*>(image().shared_begin), 0xff, image().shared_bytes);
}

}  // namespace

cudaError_t run(const Launch& launch) {
  const cudaError_t error = check_launch(launch);
  if (error != cudaSuccess) return error;
  const size_t reports_before = reports().size();
  machine.launch = launch;
  machine.launch_serial = ++machine.serial;
  machine.thread_count = launch.block.x * launch.block.y * launch.block.z;
  machine.aborting = false;
  machine.random_state = machine.options.seed * 0x9e3779b97f4a7c15ull | 1;
  const size_t rounded = (launch.dynamic_bytes + 15) & ~size_t(15);
  machine.dynamic_shared = rounded ? static_cast<char*>(aligned_alloc(16, rounded)) : nullptr;
#ifdef __SANITIZE_ADDRESS__
  if (rounded)
    __asan_poison_memory_region(machine.dynamic_shared + launch.dynamic_bytes, rounded - launch.dynamic_bytes);
#endif
  for (const uint64_t block : block_order((uint64_t)launch.grid.x * launch.grid.y * launch.grid.z)) {
    poison_shared_memory();
    run_block(block);
    if (machine.options.count_traffic) end_traffic_of_block();
    if (machine.aborting || reports().size() >= 8) break;  // enough is known
  }
  free(machine.dynamic_shared);
  machine.dynamic_shared = nullptr;
  return reports().size() == reports_before ? cudaSuccess : cudaErrorLaunchFailure;
}

}  // namespace simt
