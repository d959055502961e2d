// Block barriers, and warp collectives over the lanes of a mask.
#include <algorithm>
#include <cstring>

#include "simt/machine.h"
#include "simt/reports.h"

namespace simt {
namespace {

bool same_site(const Site& a, const Site& b) { return a.line == b.line && strcmp(a.file, b.file) == 0; }

void report_divergence(const char* what, const CudaThread& a, const CudaThread& b) {
  report_once(key_of(a.site), key_of(b.site),
              format("divergence: one %s, two places: %s at %s, %s at %s", what, thread_name(a.view).c_str(),
                     site_place(a.site).c_str(), thread_name(b.view).c_str(), site_place(b.site).c_str()));
}

void release_barrier() {
  const CudaThread* first = nullptr;
  bool all = true, any = false;
  int count = 0;
  for (unsigned i = 0; i < machine.thread_count; i++) {
    const CudaThread& thread = machine.threads[i];
    if (thread.status != Status::kAtBarrier) continue;
    if (!first) first = &thread;
    if (!same_site(first->site, thread.site)) report_divergence("block barrier", *first, thread);
    all &= thread.predicate;
    any |= thread.predicate;
    count += thread.predicate;
  }
  for (unsigned i = 0; i < machine.thread_count; i++) {
    CudaThread& thread = machine.threads[i];
    if (thread.status != Status::kAtBarrier) continue;
    thread.vote_result = thread.vote == BarrierVote::kAnd ? all : thread.vote == BarrierVote::kOr ? any : count;
    thread.epoch++;
    machine.make_ready(thread);
  }
  machine.at_barrier = 0;
}

// The lanes that take part in the collective that `caller` has reached; 0 while one of them is missing. CUDA waits for
// "all non-exited threads named in mask".
unsigned participants(const CudaThread& caller) {
  const CudaThread* warp = &machine.threads[caller.view.warp * kWarpSize];
  unsigned present = 0;
  for (unsigned lane = 0; lane < machine.lanes_of(caller.view.warp); lane++) {
    const CudaThread& thread = warp[lane];
    if (!(caller.mask >> lane & 1) || thread.status == Status::kDone) continue;
    if (thread.status != Status::kAtCollective || thread.mask != caller.mask || thread.op != caller.op) return 0;
    present |= 1u << lane;
  }
  return present;
}

template <typename Visit> void for_each_lane(unsigned warp, unsigned lanes, Visit visit) {
  for (unsigned lane = 0; lane < kWarpSize; lane++)
    if (lanes >> lane & 1) visit(lane, machine.threads[warp * kWarpSize + lane]);
}

uint64_t combine(WarpOp op, bool is_signed, uint64_t a, uint64_t b) {
  const bool less = is_signed ? (int64_t)a < (int64_t)b : a < b;
  switch (op) {
    case WarpOp::kAdd: return a + b;
    case WarpOp::kMin: return less ? a : b;
    case WarpOp::kMax: return less ? b : a;
    case WarpOp::kAll:
    case WarpOp::kAnd: return a & b;
    case WarpOp::kXor: return a ^ b;
    default: return a | b;  // ballot, any, or
  }
}

void give_results(WarpOp op, unsigned warp, unsigned lanes) {
  CudaThread* const threads = &machine.threads[warp * kWarpSize];
  uint64_t total = 0;
  bool first = true;
  for_each_lane(warp, lanes, [&](unsigned lane, CudaThread& thread) {
    const uint64_t value = op == WarpOp::kBallot ? thread.value << lane : thread.value;
    total = first ? value : combine(op, thread.is_signed, total, value);
    first = false;
  });
  for_each_lane(warp, lanes, [&](unsigned, CudaThread& thread) {
    thread.result = total;
    if (op == WarpOp::kMatchAny) {
      thread.result = 0;
      for_each_lane(warp, lanes, [&](unsigned other, const CudaThread& peer) {
        if (peer.value == thread.value) thread.result |= 1u << other;
      });
    }
    if (op == WarpOp::kShuffle) {
      const unsigned source = thread.source_lane % kWarpSize;
      thread.result = lanes >> source & 1 ? threads[source].value : ~0ull;
      if (!(lanes >> source & 1))
        report_once(
            key_of(thread.site), 3,
            format("mask: %s shuffles from lane %u, which takes no part (mask %08x, present %08x), at %s",
                   thread_name(thread.view).c_str(), source, thread.mask, lanes, site_place(thread.site).c_str()));
    }
  });
}

// __syncwarp orders memory among its lanes; CUDA promises that of no shuffle or vote.
void order_memory(unsigned warp, unsigned lanes) {
  uint32_t known[kWarpSize] = {};
  for_each_lane(warp, lanes, [&](unsigned, const CudaThread& thread) {
    for (unsigned i = 0; i < kWarpSize; i++) known[i] = std::max(known[i], thread.clock[i]);
  });
  for_each_lane(warp, lanes, [&](unsigned lane, CudaThread& thread) {
    memcpy(thread.clock, known, sizeof known);
    thread.clock[lane]++;
  });
}

void complete_if_all_there(const CudaThread& caller) {
  const unsigned lanes = participants(caller), warp = caller.view.warp;
  if (!lanes) return;
  const WarpOp op = caller.op;
  if (op == WarpOp::kSync) order_memory(warp, lanes);
  else give_results(op, warp, lanes);
  for_each_lane(warp, lanes, [&](unsigned, CudaThread& thread) {
    // Since Volta lanes may meet at different __syncwarp(), but only at the same shuffle or vote.
    if (op != WarpOp::kSync && !same_site(thread.site, caller.site))
      report_divergence("warp collective", caller, thread);
    machine.make_ready(thread);
  });
}

uint64_t wait_for_warp(CudaThread& thread, WarpOp op, unsigned mask, Site site) {
  thread.op = op;
  thread.mask = mask;
  thread.site = site;
  if (!(mask >> thread.view.lane & 1)) {
    report(format("mask: %s is not in its own mask %08x at %s", thread_name(thread.view).c_str(), mask,
                  site_place(site).c_str()));
    machine.abandon_launch();
  }
  thread.status = Status::kAtCollective;
  complete_if_all_there(thread);
  machine.end_turn();
  return thread.result;
}

}  // namespace

int block_barrier(BarrierVote vote, bool predicate, Site site) {
  CudaThread& thread = *machine.current;
  thread.vote = vote;
  thread.predicate = predicate;
  thread.site = site;
  thread.status = Status::kAtBarrier;
  if (++machine.at_barrier == machine.alive) release_barrier();
  machine.end_turn();
  return thread.vote_result;
}

uint64_t warp_collective(WarpOp op, unsigned mask, uint64_t value, unsigned source_lane, Site site) {
  CudaThread& thread = *machine.current;
  thread.value = value;
  thread.source_lane = source_lane;
  thread.is_signed = false;
  return wait_for_warp(thread, op, mask, site);
}

uint64_t warp_reduce(WarpOp op, unsigned mask, int64_t value, bool is_signed, Site site) {
  CudaThread& thread = *machine.current;
  thread.value = (uint64_t)value;
  thread.is_signed = is_signed;
  return wait_for_warp(thread, op, mask, site);
}

void on_thread_exit(const CudaThread& exited) {
  if (machine.at_barrier && machine.at_barrier == machine.alive) release_barrier();
  const unsigned first = exited.view.warp * kWarpSize;
  for (unsigned lane = 0; lane < machine.lanes_of(exited.view.warp); lane++) {
    const CudaThread& thread = machine.threads[first + lane];
    if (thread.status == Status::kAtCollective && thread.mask >> exited.view.lane & 1) complete_if_all_there(thread);
  }
}

}  // namespace simt
