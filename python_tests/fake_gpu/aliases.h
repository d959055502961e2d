// CPU tensors on the memory of device tensors, and device tensors on that of CPU tensors: nothing is copied.
#pragma once

#include <ATen/ATen.h>

#include <vector>

#include "device.h"

namespace fake_gpu {
using at::Tensor;

inline bool is_ours(const Tensor& t) { return t.defined() && t.device().type() == kType; }

inline void copy_bits(const Tensor& from, const Tensor& to) {
  if (from.unsafeGetTensorImpl()->is_wrapped_number()) to.unsafeGetTensorImpl()->set_wrapped_number(true);
  if (from.is_complex()) to._set_conj(from.is_conj());
  to._set_neg(from.is_neg());
}

inline void copy_geometry(const Tensor& from, const Tensor& to) {
  to.unsafeGetTensorImpl()->set_storage_offset(from.storage_offset());
  to.unsafeGetTensorImpl()->set_sizes_and_strides(from.sizes(), from.strides());
}

inline Tensor on_host(const Tensor& t) {
  if (!is_ours(t)) return t;
  const auto& owned = t.storage();
  c10::DataPtr data(const_cast<void*>(owned.data()), c10::Device(c10::kCPU));
  c10::Storage storage(c10::Storage::use_byte_size_t(), owned.nbytes(), std::move(data), at::getCPUAllocator(), true);
  auto host = at::detail::make_tensor<c10::TensorImpl>(std::move(storage), c10::DispatchKeySet(c10::DispatchKey::CPU),
                                                       t.dtype());
  copy_geometry(t, host);
  copy_bits(t, host);
  return host;
}

struct Pair {
  Tensor device, host;
};
using Pairs = std::vector<Pair>;  // the tensors of one call

// The device's storage on the memory of a CPU tensor, which it keeps alive; that of an argument if it is on one's.
inline c10::Storage device_storage(const Tensor& host, const Pairs& arguments) {
  const auto& storage = host.storage();
  for (const auto& argument : arguments)
    if (storage.data() && storage.data() == argument.device.storage().data()) return argument.device.storage();
  auto* owner = new c10::Storage(storage);
  c10::DataPtr data(storage.mutable_data(), owner, [](void* p) { delete static_cast<c10::Storage*>(p); }, kDevice);
  return {c10::Storage::use_byte_size_t(), storage.nbytes(), std::move(data), &memory, true};
}

// The device tensor of a CPU kernel's result; `fresh` tells whether it has memory of its own, or is a view.
inline Tensor on_device(const Tensor& host, const Pairs& arguments, bool& fresh) {
  if (!host.defined()) return host;
  for (const auto& argument : arguments)
    if (host.is_same(argument.host)) return argument.device;
  auto storage = device_storage(host, arguments);
  const Tensor* base = nullptr;
  for (const auto& argument : arguments)
    if (storage.unsafeGetStorageImpl() == argument.device.storage().unsafeGetStorageImpl()) base = &argument.device;
  fresh |= base == nullptr;
  auto t = base ? at::detail::make_tensor<c10::TensorImpl>(c10::TensorImpl::VIEW, std::move(storage), base->key_set(),
                                                           host.dtype())
                : at::detail::make_tensor<c10::TensorImpl>(std::move(storage), kKeys, host.dtype());
  copy_geometry(host, t);
  copy_bits(host, t);
  return t;
}

// After the call: an argument that was resized, or was given other memory, becomes so on the device.
inline void adopt_changes(const Pairs& arguments) {
  for (const auto& [device, host] : arguments) {
    const bool moved = host.storage().data() != device.storage().data();
    if (moved || host.storage().nbytes() != device.storage().nbytes())
      device.unsafeGetTensorImpl()->set_storage_keep_dtype(device_storage(host, arguments));
    if (host.sizes() != device.sizes() || host.strides() != device.strides() ||
        host.storage_offset() != device.storage_offset())
      copy_geometry(host, device);
  }
}

}  // namespace fake_gpu
