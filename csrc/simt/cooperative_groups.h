// Cooperative groups, as far as they map one to one onto barriers and warp collectives.
#pragma once
#include "simt/warp.h"

namespace cooperative_groups {

class thread_block {
 public:
  static unsigned thread_rank() { return simt::self()->rank; }
  static unsigned num_threads() { return blockDim.x * blockDim.y * blockDim.z; }
  static unsigned size() { return num_threads(); }
  void sync(SIMT_SITE_PARAMETERS) const { __syncthreads(site_file, site_line); }
};

inline thread_block this_thread_block() { return {}; }

template <unsigned Size> class thread_block_tile {
  static_assert(Size >= 1 && Size <= 32 && (Size & (Size - 1)) == 0, "a tile has 1, 2, 4, 8, 16 or 32 threads");

 public:
  static unsigned thread_rank() { return simt::self()->lane % Size; }
  static unsigned num_threads() { return Size; }
  static unsigned size() { return Size; }
  static unsigned meta_group_rank() { return simt::self()->rank / Size; }
  static unsigned meta_group_size() { return (thread_block::num_threads() + Size - 1) / Size; }

  void sync(SIMT_SITE_PARAMETERS) const { __syncwarp(mask(), site_file, site_line); }
  template <typename T> T shfl(T value, int source, SIMT_SITE_PARAMETERS) const {
    return __shfl_sync(mask(), value, source, (int)Size, site_file, site_line);
  }
  template <typename T> T shfl_xor(T value, unsigned lane_mask, SIMT_SITE_PARAMETERS) const {
    return __shfl_xor_sync(mask(), value, (int)lane_mask, (int)Size, site_file, site_line);
  }
  template <typename T> T shfl_up(T value, unsigned delta, SIMT_SITE_PARAMETERS) const {
    return __shfl_up_sync(mask(), value, delta, (int)Size, site_file, site_line);
  }
  template <typename T> T shfl_down(T value, unsigned delta, SIMT_SITE_PARAMETERS) const {
    return __shfl_down_sync(mask(), value, delta, (int)Size, site_file, site_line);
  }
  unsigned ballot(int predicate, SIMT_SITE_PARAMETERS) const {
    return (__ballot_sync(mask(), predicate, site_file, site_line) & mask()) >> first_lane();
  }
  int any(int predicate, SIMT_SITE_PARAMETERS) const { return __any_sync(mask(), predicate, site_file, site_line); }
  int all(int predicate, SIMT_SITE_PARAMETERS) const { return __all_sync(mask(), predicate, site_file, site_line); }

 private:
  static unsigned first_lane() { return simt::self()->lane & ~(Size - 1); }
  static unsigned mask() { return (0xffffffffu >> (32 - Size)) << first_lane(); }
};

template <unsigned Size> thread_block_tile<Size> tiled_partition(const thread_block&) { return {}; }

}  // namespace cooperative_groups
