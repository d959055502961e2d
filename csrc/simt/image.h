// Where the loader has put this library: its code, its constants, and its thread-local storage (the shared memory).
#pragma once
#include <cstddef>
#include <cstdint>

namespace simt {

struct Image {
  uintptr_t base = 0, end = 0;
  uintptr_t shared_begin = 0;  // static shared memory
  size_t shared_bytes = 0;

  bool contains(uintptr_t address) const { return base <= address && address < end; }
  bool in_static_shared(uintptr_t address) const { return address - shared_begin < shared_bytes; }
  // Of the call instruction before `return_address`.
  uintptr_t code_offset(const void* return_address) const {
    return reinterpret_cast<uintptr_t>(return_address) - 1 - base;
  }
};

// As seen by the system thread that calls it first. The executor is for one system thread.
const Image& image();

}  // namespace simt
