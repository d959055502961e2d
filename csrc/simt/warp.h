// Barriers, fences and warp collectives.
#pragma once
#include <cstring>
#include <type_traits>

#include "simt/language.h"

namespace simt {

template <typename T> uint64_t to_bits(T value) {
  static_assert(sizeof(T) <= sizeof(uint64_t), "collectives carry at most 8 bytes");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof(T));
  return bits;
}

template <typename T> T from_bits(uint64_t bits) {
  T value;
  memcpy(&value, &bits, sizeof(T));
  return value;
}

template <typename T> T shuffle(unsigned mask, T value, int source, Site site) {
  return from_bits<T>(warp_collective(WarpOp::kShuffle, mask, to_bits(value), (unsigned)source, site));
}

}  // namespace simt

inline void __syncthreads(SIMT_SITE_PARAMETERS) { simt::block_barrier(simt::BarrierVote::kNone, false, SIMT_SITE); }
inline int __syncthreads_and(int predicate, SIMT_SITE_PARAMETERS) {
  return simt::block_barrier(simt::BarrierVote::kAnd, predicate, SIMT_SITE);
}
inline int __syncthreads_or(int predicate, SIMT_SITE_PARAMETERS) {
  return simt::block_barrier(simt::BarrierVote::kOr, predicate, SIMT_SITE);
}
inline int __syncthreads_count(int predicate, SIMT_SITE_PARAMETERS) {
  return simt::block_barrier(simt::BarrierVote::kCount, predicate, SIMT_SITE);
}
inline void __syncwarp(unsigned mask = 0xffffffffu, SIMT_SITE_PARAMETERS) {
  simt::warp_collective(simt::WarpOp::kSync, mask, 0, 0, SIMT_SITE);
}
inline unsigned __activemask() { return simt::active_mask(); }

// Fences order one thread's own accesses; only barriers order those of others.
inline void __threadfence_block() {}
inline void __threadfence() {}
inline void __threadfence_system() {}

template <typename T> T __shfl_sync(unsigned mask, T value, int source, int width = 32, SIMT_SITE_PARAMETERS) {
  const int lane = simt::self()->lane;
  return simt::shuffle(mask, value, (lane & ~(width - 1)) + (source & (width - 1)), SIMT_SITE);
}
template <typename T> T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, SIMT_SITE_PARAMETERS) {
  const int lane = simt::self()->lane, source = lane ^ lane_mask, end = (lane & ~(width - 1)) + width;
  return simt::shuffle(mask, value, source >= end ? lane : source, SIMT_SITE);
}
template <typename T> T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_SITE_PARAMETERS) {
  const int lane = simt::self()->lane, source = lane - (int)delta, begin = lane & ~(width - 1);
  return simt::shuffle(mask, value, source < begin ? lane : source, SIMT_SITE);
}
template <typename T> T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_SITE_PARAMETERS) {
  const int lane = simt::self()->lane, source = lane + (int)delta, end = (lane & ~(width - 1)) + width;
  return simt::shuffle(mask, value, source >= end ? lane : source, SIMT_SITE);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, SIMT_SITE_PARAMETERS) {
  return (unsigned)simt::warp_collective(simt::WarpOp::kBallot, mask, predicate != 0, 0, SIMT_SITE);
}
inline int __any_sync(unsigned mask, int predicate, SIMT_SITE_PARAMETERS) {
  return (int)simt::warp_collective(simt::WarpOp::kAny, mask, predicate != 0, 0, SIMT_SITE);
}
inline int __all_sync(unsigned mask, int predicate, SIMT_SITE_PARAMETERS) {
  return (int)simt::warp_collective(simt::WarpOp::kAll, mask, predicate != 0, 0, SIMT_SITE);
}
template <typename T> unsigned __match_any_sync(unsigned mask, T value, SIMT_SITE_PARAMETERS) {
  return (unsigned)simt::warp_collective(simt::WarpOp::kMatchAny, mask, simt::to_bits(value), 0, SIMT_SITE);
}

#define SIMT_WARP_REDUCTION(name, op)                                                                    \
  template <typename T> T name(unsigned mask, T value, SIMT_SITE_PARAMETERS) {                           \
    return (T)simt::warp_reduce(simt::WarpOp::op, mask, (int64_t)value, std::is_signed_v<T>, SIMT_SITE); \
  }
SIMT_WARP_REDUCTION(__reduce_add_sync, kAdd)
SIMT_WARP_REDUCTION(__reduce_min_sync, kMin)
SIMT_WARP_REDUCTION(__reduce_max_sync, kMax)
SIMT_WARP_REDUCTION(__reduce_and_sync, kAnd)
SIMT_WARP_REDUCTION(__reduce_or_sync, kOr)
SIMT_WARP_REDUCTION(__reduce_xor_sync, kXor)
#undef SIMT_WARP_REDUCTION
