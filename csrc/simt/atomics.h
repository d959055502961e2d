// Atomic read-modify-writes. The checker hears of each as one atomic access, and not of the plain code that does it.
#pragma once
#include <cstring>
#include <type_traits>

#include "simt/language.h"

#ifdef __SANITIZE_THREAD__  // the check build: elsewhere the checker does not see the other accesses
#define SIMT_ATOMIC __attribute__((noinline, no_sanitize("thread")))
#define SIMT_NOTE_ATOMIC(address, size) simt::on_atomic(address, size, __builtin_return_address(0))
#else
#define SIMT_ATOMIC inline
#define SIMT_NOTE_ATOMIC(address, size) ((void)0)
#endif
#define SIMT_DEFINE_ATOMIC(name, updated)                                             \
  template <typename T> SIMT_ATOMIC T name(T* address, std::common_type_t<T> value) { \
    SIMT_NOTE_ATOMIC(address, sizeof(T));                                             \
    const T old = *address;                                                           \
    *address = updated;                                                               \
    return old;                                                                       \
  }
SIMT_DEFINE_ATOMIC(atomicAdd, old + value)
SIMT_DEFINE_ATOMIC(atomicSub, old - value)
SIMT_DEFINE_ATOMIC(atomicExch, value)
SIMT_DEFINE_ATOMIC(atomicMin, value < old ? value : old)
SIMT_DEFINE_ATOMIC(atomicMax, old < value ? value : old)
SIMT_DEFINE_ATOMIC(atomicAnd, old& value)
SIMT_DEFINE_ATOMIC(atomicOr, old | value)
SIMT_DEFINE_ATOMIC(atomicXor, old ^ value)
#undef SIMT_DEFINE_ATOMIC

template <typename T> SIMT_ATOMIC T atomicCAS(T* address, std::common_type_t<T> compare, std::common_type_t<T> value) {
  SIMT_NOTE_ATOMIC(address, sizeof(T));
  const T old = *address;
  if (memcmp(&old, &compare, sizeof(T)) == 0) *address = value;
  return old;
}
#undef SIMT_ATOMIC
#undef SIMT_NOTE_ATOMIC
