// The executor's stand-ins for the CUDA runtime functions that launchers call, and what they say about a launch.
#pragma once
#include "simt/runtime.h"

namespace simt {

constexpr int kMultiprocessors = 4;  // few, so that small inputs reach the second round of a grid-stride loop
constexpr size_t kDefaultDynamicBytes = 48 << 10;
constexpr size_t kMaxDynamicBytes = 227 << 10;  // Hopper

// What CUDA would say to the launch's configuration.
cudaError_t check_launch(const Launch& launch);

}  // namespace simt
