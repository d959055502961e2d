// Estimates the memory traffic of a kernel. The n-th execution of an instruction by the lanes of a warp is one request:
// of global memory it moves 32-byte sectors, of shared memory it takes passes over 32 banks of 4 bytes.
#pragma once
#include "simt/memory.h"

namespace simt {

void count_request(const MemoryAccess& access, bool shared);
void end_traffic_of_block();
void clear_traffic();

// Sums over the requests of one instruction. Read by python_tests/simt: keep in step.
struct TrafficRow {
  uint64_t code_offset;
  uint64_t requests, lanes;
  uint64_t units;  // sectors, or bank passes
  uint64_t ideal;  // the least that would do for as many different bytes
  uint32_t bytes;  // of one lane's access
  uint32_t is_write, is_shared;
};
size_t traffic_rows(const TrafficRow** rows);

}  // namespace simt
