// A stack of its own that runs a function and can be left and re-entered: what a CUDA thread runs on.
#pragma once
#include <cstddef>
#include <cstdint>

namespace simt {

class Fiber {
 public:
  static constexpr size_t kStackBytes = 256 * 1024;

  // The next resume() starts `entry` on an empty stack, whatever ran there before.
  void restart(void (*entry)());
  // Runs the fibre until it calls suspend() or finish(). Called from outside it.
  void resume();
  // Goes back to the caller of resume(). Called from inside.
  void suspend() { leave(false); }
  [[noreturn]] void finish();
  // Called first thing by `entry`.
  void on_entry();

  bool owns(uintptr_t address) const { return address - reinterpret_cast<uintptr_t>(stack_) < kStackBytes; }

 private:
  void leave(bool for_good);

  char* stack_ = nullptr;
  void* stack_pointer_ = nullptr;
  void* fake_stack_ = nullptr;  // AddressSanitizer's
};

}  // namespace simt
