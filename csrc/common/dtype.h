// How the launchers of CUDA kernels are told the dtype of their tensors.
#pragma once

namespace led {

enum Dtype : int { kFloat64, kFloat32, kBFloat16, kFloat16 };

}  // namespace led
