// _C_cuda: the CUDA kernels, which register themselves. Loaded only where torch has CUDA.
#include <cuda_runtime_api.h>
#include <pybind11/pybind11.h>

PYBIND11_MODULE(_C_cuda, m) {
  m.doc() = "led_fast's operators for CUDA, registered with torch on import.";
  m.def("build_info", [] {
    pybind11::dict info;
    int driver = 0;
    if (cudaDriverGetVersion(&driver) != cudaSuccess) driver = 0;  // needs no context, and makes none
    info["cuda_toolkit"] = CUDART_VERSION;
    info["cuda_driver"] = driver;
    info["cuda_architectures"] = LED_FAST_CUDA_ARCHITECTURES;
    return info;
  });
}
