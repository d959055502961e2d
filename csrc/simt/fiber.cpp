#include "simt/fiber.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#ifndef __x86_64__
#error "the SIMT executor switches stacks with x86-64 instructions"
#endif

// Saves the callee-saved registers on the present stack, stores its pointer in *save, and goes on where `to` was saved.
extern "C" void simt_switch_stack(void** save, void* to);
asm(R"(
.text
.hidden simt_switch_stack
.globl simt_switch_stack
.type simt_switch_stack, @function
simt_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size simt_switch_stack, . - simt_switch_stack
)");

namespace simt {
namespace {
constexpr size_t kGuardBytes = 4096;
constexpr int kSavedRegisters = 6;

void* host_stack_pointer = nullptr;
#ifdef __SANITIZE_ADDRESS__
void* host_fake_stack = nullptr;
const void* host_stack_bottom = nullptr;
size_t host_stack_bytes = 0;
#endif

char* allocate_stack() {
  const size_t bytes = Fiber::kStackBytes + kGuardBytes;
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, kGuardBytes, PROT_NONE) != 0) {
    perror("simt: no memory for a fibre's stack");
    abort();
  }
  return static_cast<char*>(memory) + kGuardBytes;
}
}  // namespace

void Fiber::restart(void (*entry)()) {
  if (!stack_) stack_ = allocate_stack();
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(stack_, kStackBytes);  // frames of a thread that was abandoned
#endif
  void** top = reinterpret_cast<void**>(stack_ + kStackBytes);
  *--top = nullptr;  // entry's return address: it never returns, and this aligns the stack as a call would
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < kSavedRegisters; i++) *--top = nullptr;
  stack_pointer_ = top;
  fake_stack_ = nullptr;
}

void Fiber::resume() {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(&host_fake_stack, stack_, kStackBytes);
#endif
  simt_switch_stack(&host_stack_pointer, stack_pointer_);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(host_fake_stack, nullptr, nullptr);
#endif
}

void Fiber::on_entry() {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(nullptr, &host_stack_bottom, &host_stack_bytes);
#endif
}

void Fiber::leave([[maybe_unused]] bool for_good) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(for_good ? nullptr : &fake_stack_, host_stack_bottom, host_stack_bytes);
#endif
  simt_switch_stack(&stack_pointer_, host_stack_pointer);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(fake_stack_, &host_stack_bottom, &host_stack_bytes);
#endif
}

void Fiber::finish() {
  leave(true);
  abort();  // nobody resumes a finished fibre
}

}  // namespace simt
