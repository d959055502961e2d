#include "simt/memory.h"

#include <map>

#include "simt/image.h"
#include "simt/machine.h"
#include "simt/race_detector.h"
#include "simt/reports.h"
#include "simt/traffic.h"

namespace simt {
namespace {

struct Buffer {
  uintptr_t begin, end;
  std::string name;
  bool writable;
};
std::map<uintptr_t, Buffer> buffers;  // by first address

const Buffer* buffer_at_or_before(uintptr_t address) {
  const auto after = buffers.upper_bound(address);
  return after == buffers.begin() ? nullptr : &std::prev(after)->second;
}

bool in_range(uintptr_t address, const void* begin, size_t bytes) {
  return address - reinterpret_cast<uintptr_t>(begin) < bytes;
}

std::string describe(const MemoryAccess& a) {
  return format("%s of %zu bytes by %s at %s", a.is_write ? "write" : "read", a.bytes,
                thread_name(machine.current->view).c_str(), code_place(a.code).c_str());
}

// An access that must not be executed: the launch ends with it.
void refuse(const MemoryAccess& access, const std::string& text) {
  report_once(key_of(access.code), 1, text);
  machine.abandon_launch();
}

// What no other thread can see, or nobody writes.
bool is_private(const MemoryAccess& a) {
  if (machine.current->fiber.owns(a.address)) return true;
  if (a.is_write) return false;
  return in_range(a.address, machine.launch.parameters, machine.launch.parameter_bytes) ||
         in_range(a.address, machine.threads, sizeof machine.threads) ||         // threadIdx and the like
         (image().contains(a.address) && !image().in_static_shared(a.address));  // constants
}

bool is_shared(const MemoryAccess& a) {
  const uintptr_t dynamic = reinterpret_cast<uintptr_t>(machine.dynamic_shared);
  const size_t bytes = machine.launch.dynamic_bytes;
  if (dynamic && in_range(a.address, machine.dynamic_shared, bytes + 64)) {
    if (a.address + a.bytes > dynamic + bytes)
      refuse(a, format("bounds: %s, offset %ld of %zu bytes of dynamic shared memory", describe(a).c_str(),
                       (long)(a.address - dynamic), bytes));
    return true;
  }
  return image().in_static_shared(a.address);
}

void check_buffer(const MemoryAccess& a) {
  const Buffer* buffer = buffer_at_or_before(a.address);
  if (buffer && a.address + a.bytes <= buffer->end) {
    if (a.is_write && !buffer->writable)
      refuse(a, format("read-only: %s, buffer '%s'", describe(a).c_str(), buffer->name.c_str()));
    return;
  }
  std::string text = "bounds: " + describe(a);
  if (buffer)
    text += format(", %+ld bytes from the end of buffer '%s'", (long)(a.address - buffer->end), buffer->name.c_str());
  refuse(a, text);
}

void preempt() {
  CudaThread& thread = *machine.current;
  machine.make_ready(thread);
  machine.end_turn();
}

}  // namespace

void on_access(const MemoryAccess& access) {
  if (!machine.current || is_private(access)) return;
  const bool shared = is_shared(access);
  if (!shared) check_buffer(access);
  if (machine.options.count_traffic && !access.is_atomic) count_request(access, shared);
  check_races(access, shared);
  const int permille = machine.options.preempt_permille;
  if (permille && !access.is_atomic && machine.random() % 1000 < (unsigned)permille) preempt();
}

void on_atomic(const void* address, size_t size, void* code) {
  on_access({reinterpret_cast<uintptr_t>(address), size, true, true, code});
}

void register_buffer(const void* begin, size_t bytes, const std::string& name, bool writable) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(begin);
  if (bytes) buffers[address] = Buffer{address, address + bytes, name, writable};
}

void clear_buffers() { buffers.clear(); }

}  // namespace simt
