// Checks each memory access of a kernel: bounds, initialisation of shared memory, races.
#pragma once
#include <string>

#include "simt/runtime.h"

namespace simt {

struct MemoryAccess {
  uintptr_t address;
  size_t bytes;
  bool is_write, is_atomic;
  const void* code;  // return address of the hook
};

void on_access(const MemoryAccess& access);

// Kernels may touch no global memory but these buffers.
void register_buffer(const void* begin, size_t bytes, const std::string& name, bool writable);
void clear_buffers();

}  // namespace simt
