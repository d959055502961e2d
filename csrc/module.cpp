// _C: the schema of every operator and how the library was built. The CPU kernels register themselves.
#include <pybind11/pybind11.h>
#include <torch/csrc/stable/library.h>
#include <torch/headeronly/version.h>

#include "common/multiversion.h"

STABLE_TORCH_LIBRARY(led_fast, m) {
  m.def("circulant_logdet(Tensor weight, SymInt rows, SymInt columns) -> Tensor");
  m.def("circulant_logdet_with_grad(Tensor weight, SymInt rows, SymInt columns) -> (Tensor, Tensor)");
  m.def("circular_conv_inverse(Tensor y, Tensor weight, bool keep) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "circular_conv_inverse_backward(Tensor? grad_x, Tensor? grad_log_abs_det, Tensor y, Tensor weight, Tensor "
      "solved, Tensor inverses, bool need_y, bool need_weight) -> (Tensor, Tensor)");
  // For CUDA alone: what lies between the Fourier transforms.
  m.def("circular_conv_invert(Tensor weight, SymInt rows, SymInt columns) -> (Tensor, Tensor)");
  m.def("circular_conv_solve(Tensor spectrum, Tensor inverses, bool adjoint) -> Tensor");
  m.def(
      "circular_conv_weight_gradient(Tensor? grad_spectrum, Tensor? grad_log_abs_det, Tensor weight, Tensor solved, "
      "Tensor inverses, SymInt columns) -> Tensor");
  m.def("soft_relu(Tensor x, float alpha, float beta, float u0, float t0) -> (Tensor, Tensor)");
  m.def(
      "soft_relu_backward(Tensor x, Tensor? grad_y, Tensor? grad_log_abs_det, float alpha, float beta, float u0) -> "
      "Tensor");
  m.def("soft_relu_inverse(Tensor y, float alpha, float beta, float u0, float t0) -> (Tensor, Tensor)");
  m.def(
      "soft_relu_inverse_backward(Tensor y, Tensor? grad_x, Tensor? grad_log_abs_det, float alpha, float beta, "
      "float u0, float t0) -> Tensor");
  m.def(
      "soft_relu_per_feature(Tensor x, Tensor ratio, Tensor sharpness, Tensor u0, Tensor t0, bool inverse) -> (Tensor, "
      "Tensor)");
  m.def(
      "soft_relu_per_feature_score(Tensor x, Tensor score, Tensor ratio, Tensor sharpness, Tensor u0, Tensor t0) -> "
      "Tensor");
  m.def(
      "soft_relu_per_feature_backward(Tensor x, Tensor? grad_y, Tensor? grad_log_abs_det, Tensor ratio, Tensor "
      "sharpness, Tensor u0, Tensor t0, bool inverse) -> (Tensor, Tensor)");
  m.def(
      "perpendicular_norm(Tensor x, Tensor weight, Tensor t, SymInt[] stride, SymInt[] padding, SymInt[] dilation, "
      "SymInt groups, "
      "bool keep_u) -> (Tensor, Tensor, Tensor)");
  m.def(
      "perpendicular_norm_backward(Tensor x, Tensor weight, Tensor t, Tensor u, Tensor coefficient, Tensor scale, "
      "SymInt[] stride, SymInt[] padding, SymInt[] dilation, SymInt groups, bool need_weight, bool need_t) -> (Tensor, "
      "Tensor, "
      "Tensor)");
  m.def("perpendicular_norm_to(Tensor x, Tensor u) -> (Tensor, Tensor)");
}

PYBIND11_MODULE(_C, m) {
  m.doc() = "led_fast's operators for the CPU, registered with torch on import.";
  m.def("build_info", [] {
    pybind11::dict info;
    info["torch_headers"] = TORCH_VERSION;
    info["compiler"] = "gcc-compatible " __VERSION__;
    info["cpu_instruction_set"] = led::instruction_set();
    return info;
  });
}
