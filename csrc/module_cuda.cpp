// _C_cuda: the CUDA kernels, which register themselves. Loaded only where torch has CUDA.
#include <cuda_runtime_api.h>
#include <pybind11/pybind11.h>

PYBIND11_MODULE(_C_cuda, m) {
  m.doc() = "led_fast's operators for CUDA, registered with torch on import.";
  m.def("build_info", [] {
    pybind11::dict info;
    info["cuda_toolkit"] = CUDART_VERSION;
    info["cuda_architectures"] = LED_FAST_CUDA_ARCHITECTURES;
    return info;
  });
}
