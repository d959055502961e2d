// Stands in for CUDA when a host compiler builds a .cu file for the tests: one fibre per CUDA thread.
// common/gpu.h includes this file where LED_FAST_SIMT is defined. See README.md for what is modelled and what is not.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "simt/host_functions.h"
#include "simt/language.h"
// The parts below are written in the language that language.h defines.
#include "simt/atomics.h"
#include "simt/intrinsics.h"
#include "simt/warp.h"
// Needs warp.h.
#include "simt/cooperative_groups.h"
