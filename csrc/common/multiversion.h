// CPU kernels for several instruction sets in one library.
//
// A kernel is plain loops over scalar formulas, marked LED_SIMD for the vectoriser, in functions marked
// LED_MULTIVERSION: those are compiled once per instruction set and the loader picks the best one. Everything they
// call must be LED_INLINE, so that it is compiled into each version.
#pragma once

#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__)
// AddressSanitizer starts after the loader has run the resolvers, so its builds take one version.
#define LED_MULTIVERSION __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define LED_MULTIVERSION
#endif
#define LED_INLINE inline __attribute__((always_inline))
#define LED_SIMD _Pragma("omp simd")

namespace led {

// The name of the instruction set that LED_MULTIVERSION functions run with on this machine.
inline const char* instruction_set() {
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("x86-64-v4")) return "AVX-512 (x86-64-v4)";
  if (__builtin_cpu_supports("x86-64-v3")) return "AVX2 (x86-64-v3)";
#endif
  return "baseline";
}

}  // namespace led
