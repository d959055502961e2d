// The check build compiles kernels with -fsanitize=thread,bounds,alignment and links neither sanitizer's library: the
// hooks that the compiler inserts end here, where CUDA's rules apply instead of C++'s.
#include "simt/machine.h"
#include "simt/memory.h"
#include "simt/reports.h"

namespace {

void on_hook(void* address, size_t bytes, bool is_write, const void* code) {
  simt::on_access({reinterpret_cast<uintptr_t>(address), bytes, is_write, false, code});
}

// Layouts of libubsan's data, which the compiler emits.
struct SourceLocation {
  const char* file;
  uint32_t line, column;
};
struct Check {
  SourceLocation place;
};

// The access must not be executed: the launch ends.
void refuse(const Check* check, const char* text) {
  if (!simt::machine.current) return;
  simt::report_once(simt::key_of(check), 2,
                    simt::format("%s by %s at %s:%u", text, simt::thread_name(simt::machine.current->view).c_str(),
                                 check->place.file, check->place.line));
  simt::machine.abandon_launch();
}

}  // namespace

extern "C" {

#define SIMT_HOOK(name, bytes, is_write) \
  void name(void* address) { on_hook(address, bytes, is_write, __builtin_return_address(0)); }
#define SIMT_HOOKS(bytes)                               \
  SIMT_HOOK(__tsan_read##bytes, bytes, false)           \
  SIMT_HOOK(__tsan_write##bytes, bytes, true)           \
  SIMT_HOOK(__tsan_unaligned_read##bytes, bytes, false) \
  SIMT_HOOK(__tsan_unaligned_write##bytes, bytes, true) \
  SIMT_HOOK(__tsan_volatile_read##bytes, bytes, false)  \
  SIMT_HOOK(__tsan_volatile_write##bytes, bytes, true)
SIMT_HOOKS(1)
SIMT_HOOKS(2)
SIMT_HOOKS(4)
SIMT_HOOKS(8)
SIMT_HOOKS(16)

void __tsan_read_range(void* address, size_t bytes) { on_hook(address, bytes, false, __builtin_return_address(0)); }
void __tsan_write_range(void* address, size_t bytes) { on_hook(address, bytes, true, __builtin_return_address(0)); }
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_init() {}

void __ubsan_handle_out_of_bounds(const Check* check, uintptr_t) {
  refuse(check, "bounds: index outside of its array");
}
void __ubsan_handle_type_mismatch_v1(const Check* check, uintptr_t) { refuse(check, "alignment: misaligned access"); }

}  // extern "C"
