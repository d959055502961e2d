// Marks scalar formulas that CPU and GPU share.
#pragma once

#ifdef __CUDACC__
#define LED_EVERYWHERE __host__ __device__ __forceinline__
#else
#define LED_EVERYWHERE inline __attribute__((always_inline))
#endif
