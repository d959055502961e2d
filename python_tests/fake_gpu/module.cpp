// A fake GPU: PrivateUse1 tensors whose memory is the host's and whose every operator is the CPU's, but which
// refuse to meet CPU tensors where CUDA would. See README.md.
#include <torch/csrc/utils/pybind.h>

#include "autocast.h"
#include "operators.h"

namespace {
using namespace fake_gpu;

// Composites that CUDA has kernels of its own for, or that look at the device.
bool has_cuda_kernel(const c10::OperatorName& op) {
  static const std::set<std::string> names{"aten::convolution",
                                           "aten::_convolution",
                                           "aten::convolution_backward",
                                           "aten::native_batch_norm",
                                           "aten::native_batch_norm_backward",
                                           "aten::native_dropout",
                                           "aten::native_layer_norm",
                                           "aten::native_group_norm",
                                           "aten::_softmax"};
  return (names.count(op.name) || op.name.rfind("aten::_foreach_", 0) == 0) &&
         op.overload_name.find("out") == std::string::npos;
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>()); }
TORCH_LIBRARY_IMPL(aten, Conjugate, m) { m.impl("_copy_from", torch::CppFunction::makeFallthrough()); }
TORCH_LIBRARY_IMPL(aten, Negative, m) { m.impl("_copy_from", torch::CppFunction::makeFallthrough()); }
TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", TORCH_FN(fake_gpu::empty));
  m.impl("empty_strided", TORCH_FN(fake_gpu::empty_strided));
  m.impl("_copy_from", TORCH_FN(copy_from));
  m.impl("_copy_from_and_resize", TORCH_FN(copy_from_and_resize));
  m.impl("_local_scalar_dense", TORCH_FN(local_scalar_dense));
  m.impl("set_.source_Storage_storage_offset", TORCH_FN(set_storage));
  m.impl("set_.source_Storage", TORCH_FN(set_whole_storage));
  for (const auto& op : c10::Dispatcher::singleton().getAllOpNames())
    if (has_cuda_kernel(op))
      m.impl((op.name + (op.overload_name.empty() ? "" : "." + op.overload_name)).c_str(),
             torch::CppFunction::makeFromBoxedFunction<&fallback>());
}

PyObject* listener = nullptr;  // of this reference nobody else lets go: Python may be gone when statics are
void observe(const py::object& function) {
  observer = nullptr;
  Py_XDECREF(listener);
  listener = function.is_none() ? nullptr : function.inc_ref().ptr();
  if (listener)
    observer = [](const char* kind, const std::string& name) {
      py::gil_scoped_acquire gil;
      py::reinterpret_borrow<py::function>(listener)(kind, name);
    };
}
}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  static Hooks hooks;
  at::RegisterPrivateUse1HooksInterface(&hooks);
  m.def("observe", &observe);
  m.def("default_generator", [] { return default_generator(); });
}
