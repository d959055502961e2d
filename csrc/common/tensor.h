// What every operator's torch side needs from LibTorch's stable ABI: checks, allocation, memory layout.
#pragma once
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>

namespace led {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Uninitialised, with `like`'s device. Cheaper than stable::empty, which goes through the dispatcher.
inline Tensor empty_strided(const Tensor& like, const int64_t* sizes, const int64_t* strides, int64_t dim,
                            ScalarType dtype) {
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      dim, sizes, strides, torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype)),
      like.is_cuda() ? aoti_torch_device_type_cuda() : aoti_torch_device_type_cpu(), like.get_device_index(), &handle));
  return Tensor(handle);
}

// A vector of one value per sample.
inline Tensor empty_per_sample(const Tensor& like, ScalarType dtype) {
  const int64_t size = like.size(0), stride = 1;
  return empty_strided(like, &size, &stride, 1, dtype);
}

inline bool same_sizes(const Tensor& a, const Tensor& b) {
  const auto x = a.sizes(), y = b.sizes();
  return x.size() == y.size() && std::equal(x.begin(), x.end(), y.begin());
}

inline bool has_strides_of(const Tensor& x, MemoryFormat format) {
  if (format == MemoryFormat::Contiguous) return x.is_contiguous();
  const int64_t last = x.dim() - 1;
  int64_t expected = 1;
  const auto follows = [&](int64_t d) {
    const bool ok = x.size(d) == 1 || x.stride(d) == expected;
    expected *= x.size(d);
    return ok;
  };
  if (!follows(1)) return false;
  for (int64_t d = last; d >= 2; --d)
    if (!follows(d)) return false;
  return follows(0);
}

// The layout in which elementwise operators of this library write their results: channels-last inputs stay
// channels-last, everything else becomes contiguous. In both, a sample is one dense block of memory.
inline MemoryFormat sample_dense_format(const Tensor& x) {
  if (x.is_contiguous()) return MemoryFormat::Contiguous;
  if (x.dim() == 4 && has_strides_of(x, MemoryFormat::ChannelsLast)) return MemoryFormat::ChannelsLast;
  if (x.dim() == 5 && has_strides_of(x, MemoryFormat::ChannelsLast3d)) return MemoryFormat::ChannelsLast3d;
  return MemoryFormat::Contiguous;
}

// x itself where it already has the layout, else a copy that has.
inline Tensor in_format(const Tensor& x, MemoryFormat format) {
  return has_strides_of(x, format) ? x : torch::stable::contiguous(x, format);
}

// Uninitialised, of x's shape and dtype, with the strides of x, which must be sample-dense.
inline Tensor empty_with_strides_of(const Tensor& x) {
  return empty_strided(x, x.sizes().data(), x.strides().data(), x.dim(), x.scalar_type());
}

}  // namespace led
