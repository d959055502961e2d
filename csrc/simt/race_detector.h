// Finds pairs of conflicting accesses that CUDA does not order, whichever way the threads happened to be scheduled.
//
// __syncthreads orders the threads of the block, __syncwarp the lanes of its mask. Nothing orders two blocks of a
// launch. Two atomic accesses do not conflict.
#pragma once
#include "simt/memory.h"

namespace simt {

void check_races(const MemoryAccess& access, bool shared);

}  // namespace simt
