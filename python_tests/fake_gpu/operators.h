// Every operator: the CPU's kernel on aliases, once the arguments are found to be where CUDA would want them.
#pragma once

#include <ATen/EmptyTensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <functional>
#include <set>
#include <string>

#include "aliases.h"

namespace fake_gpu {
using c10::IValue;

// What the device is asked to do: "launch", "view", "sync" (the host waits), "h2d", "d2h", and by which operator.
inline std::function<void(const char* kind, const std::string& name)> observer;
inline void tell(const char* kind, const std::string& name) {
  if (observer) observer(kind, name);
}

// CPU tensors of no dimension may meet device tensors in pointwise operators, and in these.
const std::set<std::string> kTakeAnyScalar{"aten::where",         "aten::index_put_",    "aten::_index_put_impl_",
                                           "aten::masked_fill_",  "aten::masked_fill",   "aten::fill_",
                                           "aten::_foreach_mul_", "aten::_foreach_div_", "aten::_foreach_add_"};

// CUDA's own kernels of these wait for a number from the device.
const std::set<std::string> kWait{"aten::nonzero",           "aten::equal",       "aten::masked_select",
                                  "aten::_unique2",          "aten::unique_dim",  "aten::unique_consecutive",
                                  "aten::repeat_interleave", "aten::bincount",    "aten::linalg_eigh",
                                  "aten::_linalg_eigh",      "aten::_linalg_svd", "aten::linalg_eig",
                                  "aten::multinomial",       "aten::is_nonzero",  "aten::linalg_lstsq"};

// The arguments of one call, replaced one by one by what the CPU's kernel takes.
class Arguments {
 public:
  Pairs pairs;  // the device tensors among them
  bool writes = false;

  Arguments(const c10::OperatorHandle& op, torch::jit::Stack& stack)
      : name_(op.schema().name()), takes_scalars_(op.hasTag(at::Tag::pointwise) || kTakeAnyScalar.count(name_)) {
    const auto& arguments = op.schema().arguments();
    const size_t begin = stack.size() - arguments.size();
    for (size_t i = 0; i < arguments.size(); ++i) replace(stack[begin + i], arguments[i]);
    const bool only_scalar_value = writes && stack.back().isBool() && value_is_scalar(stack);
    const bool told = name_ == "aten::index";  // by the `nonzero` that it begins with
    if (mask_ && !only_scalar_value && !told) tell("sync", name_ + " (by a mask)");
    if (host_index_) tell("h2d", name_ + " (by indices of the CPU)");
    TORCH_CHECK(pairs.empty() || stray_.empty(), "Expected all tensors to be on the same device, but ",
                toString(op.operator_name()), " got tensors on ", kDevice.str(), " and ", stray_);
    TORCH_CHECK(pairs.empty() || !host_generator_, "Expected a generator of ", kDevice.str(),
                " but found one of cpu in ", name_);
    TORCH_CHECK(stray_.empty() || !device_generator_, "Expected a generator of cpu but found one of ", kDevice.str(),
                " in ", name_);
  }

 private:
  std::string name_, stray_;
  bool takes_scalars_, host_generator_ = false, device_generator_ = false, mask_ = false, host_index_ = false;

  bool value_is_scalar(const torch::jit::Stack& stack) const {  // index_put of one value is a masked_fill
    for (const auto& value : stack)
      if (value.isTensor() && value.toTensor().defined() && value.toTensor().dim() == 0) return true;
    return false;
  }

  Tensor take(const Tensor& t, const c10::Argument& argument) {
    if (!t.defined()) return t;
    if (!is_ours(t)) {
      if (!(takes_scalars_ && t.dim() == 0)) stray_ = argument.name() + " on " + t.device().str();
      return t;
    }
    for (const auto& pair : pairs)
      if (pair.device.is_same(t)) return pair.host;
    pairs.push_back({t, on_host(t)});
    return pairs.back().host;
  }

  std::optional<Tensor> take_index(const IValue& value, const c10::Argument& argument) {
    if (value.isNone() || !value.toTensor().defined()) return std::nullopt;
    const Tensor& t = value.toTensor();
    if (is_ours(t)) {
      mask_ |= t.scalar_type() == at::kBool || t.scalar_type() == at::kByte;
      return take(t, argument);
    }
    host_index_ = true;  // CUDA copies it to the device itself
    return t;
  }

  static bool is_optional(const c10::TypePtr& type, c10::TypeKind of) {
    return type->kind() == c10::TypeKind::OptionalType &&
           type->castRaw<c10::OptionalType>()->getElementType()->kind() == of;
  }
  static bool is_indices(const c10::TypePtr& type) {
    return type->kind() == c10::TypeKind::ListType &&
           is_optional(type->castRaw<c10::ListType>()->getElementType(), c10::TypeKind::TensorType);
  }

  void replace(IValue& value, const c10::Argument& argument) {
    if (argument.alias_info() && argument.alias_info()->isWrite()) writes = true;
    if (value.isTensor()) {
      value = take(value.toTensor(), argument);
    } else if (value.isTensorList()) {
      c10::List<Tensor> list;
      for (const Tensor& t : value.toTensorVector()) list.push_back(take(t, argument));
      value = list;
    } else if (value.isList() && is_indices(argument.type())) {
      c10::List<std::optional<Tensor>> list;
      for (const IValue& index : value.toListRef()) list.push_back(take_index(index, argument));
      value = list;
    } else if (value.isDevice()) {
      value = c10::Device(c10::kCPU);
    } else if (value.isGenerator()) {
      const auto generator = value.toGenerator();
      device_generator_ = generator.device().type() == kType;
      host_generator_ = !device_generator_;
      if (device_generator_) value = host_generator(generator);
    } else if (value.isNone() && is_optional(argument.type(), c10::TypeKind::GeneratorType)) {
      value = host_generator(default_generator());
    }
  }
};

inline void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  Arguments arguments(op, *stack);
  {
    at::AutoDispatchBelowADInplaceOrView below;
    op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  }
  adopt_changes(arguments.pairs);
  bool launched = arguments.writes;
  for (size_t i = stack->size() - op.schema().returns().size(); i < stack->size(); ++i) {
    IValue& value = (*stack)[i];
    if (value.isTensor()) {
      value = on_device(value.toTensor(), arguments.pairs, launched);
    } else if (value.isTensorList()) {
      c10::List<Tensor> list;
      for (const Tensor& t : value.toTensorVector()) list.push_back(on_device(t, arguments.pairs, launched));
      value = list;
    }
  }
  tell(launched ? "launch" : "view", toString(op.operator_name()));
  if (kWait.count(op.schema().name())) tell("sync", op.schema().name());
}

// The few operators that have no CPU kernel to call.

inline Tensor empty(c10::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                    std::optional<at::Device>, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(size, &memory, kKeys, c10::dtype_or_default(dtype), format);
}

inline Tensor empty_strided(c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<at::ScalarType> dtype,
                            std::optional<at::Layout>, std::optional<at::Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(size, stride, &memory, kKeys, c10::dtype_or_default(dtype));
}

inline Tensor copy_from(const Tensor& from, const Tensor& to, bool) {
  tell(is_ours(from) && is_ours(to) ? "launch" : is_ours(from) ? "d2h" : "h2d", "aten::copy_");
  on_host(to).copy_(on_host(from));
  return to;
}

inline Tensor copy_from_and_resize(const Tensor& from, const Tensor& to) {
  to.resize_(from.sizes());
  return copy_from(from, to, false);
}

inline at::Scalar local_scalar_dense(const Tensor& t) {
  tell("sync", "aten::_local_scalar_dense");
  return at::_local_scalar_dense(on_host(t));
}

inline Tensor& set_storage(Tensor& t, c10::Storage storage, int64_t offset, c10::IntArrayRef size,
                           c10::IntArrayRef stride) {
  TORCH_CHECK(storage.device().type() == kType, "set_: storage on ", storage.device(), ", tensor on ", kDevice);
  auto* impl = t.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(std::move(storage));
  impl->set_storage_offset(offset);
  if (stride.data() == nullptr || (stride.empty() && !size.empty())) impl->set_sizes_contiguous(size);
  else impl->set_sizes_and_strides(size, stride);
  return t;
}

inline Tensor& set_whole_storage(Tensor& t, c10::Storage storage) {
  const int64_t n = storage.nbytes() / t.dtype().itemsize();
  return set_storage(t, std::move(storage), 0, {n}, {1});
}

}  // namespace fake_gpu
