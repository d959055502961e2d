// The part of the mixture's torch side that all devices share: safety checks, layouts, outputs, empty inputs.
#pragma once
#include <tuple>

#include "common/tensor.h"

namespace led::mixture {

// The dtype of all but x: float32 or better.
inline ScalarType real_dtype(const Tensor& x) {
  return x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

inline Tensor dense(const Tensor& t) { return in_format(t, MemoryFormat::Contiguous); }

// B samples of D numbers and K components, all contiguous.
struct Problem {
  Tensor x, means, log_scales, log_weights;

  int64_t samples() const { return x.size(0); }
  int64_t dimension() const { return x.size(1); }
  int64_t components() const { return means.size(0); }
};

inline Problem check_problem(const Tensor& x, const Tensor& means, const Tensor& log_scales,
                             const Tensor& log_weights) {
  STD_TORCH_CHECK(x.dim() == 2 && means.dim() == 2 && means.size(1) == x.size(1) && same_sizes(log_scales, means) &&
                      log_weights.dim() == 1 && log_weights.size(0) == means.size(0) && means.size(0) > 0,
                  "mixture_log_prob: x must have shape (B, D), means and log_scales (K, D), log_weights (K,), K > 0");
  for (const Tensor* p : {&means, &log_scales, &log_weights})
    STD_TORCH_CHECK(p->scalar_type() == real_dtype(x) && p->device() == x.device(),
                    "mixture_log_prob: parameters must be float64 for float64 inputs, else float32, on the device of "
                    "x");
  return {dense(x), dense(means), dense(log_scales), dense(log_weights)};
}

// What the gradient wants to know: the score, and two numbers a sample that make up a component's share of the density.
struct Kept {
  void *score, *shares;
};

// launch(problem, log_prob, kept); never called without samples. Nothing is kept: both are empty, and null for launch.
template <class Launch>
std::tuple<Tensor, Tensor, Tensor> forward_op(const Tensor& x, const Tensor& means, const Tensor& log_scales,
                                              const Tensor& log_weights, bool keep, Launch launch) {
  const Problem p = check_problem(x, means, log_scales, log_weights);
  const auto kept_of = [&](int64_t rows, int64_t columns) {
    const int64_t sizes[2] = {rows, columns}, strides[2] = {columns, 1}, none = 0;
    return keep ? empty_strided(x, sizes, strides, 2, real_dtype(x))
                : empty_strided(x, &none, strides + 1, 1, real_dtype(x));
  };
  Tensor log_prob = empty_per_sample(x, real_dtype(x)), score = kept_of(p.samples(), p.dimension()),
         shares = kept_of(2, p.samples());
  if (p.samples() > 0) launch(p, log_prob, keep ? Kept{score.mutable_data_ptr(), shares.mutable_data_ptr()} : Kept{});
  return {log_prob, score, shares};
}

using Gradients = std::tuple<Tensor, Tensor, Tensor>;

// launch(problem, grad_log_prob, shares, gradients): to means, log_scales and log_weights.
template <class Launch>
Gradients backward_op(const Tensor& grad_log_prob, const Tensor& x, const Tensor& means, const Tensor& log_scales,
                      const Tensor& log_weights, const Tensor& shares, Launch launch) {
  const Problem p = check_problem(x, means, log_scales, log_weights);
  STD_TORCH_CHECK(grad_log_prob.dim() == 1 && grad_log_prob.size(0) == p.samples() && shares.dim() == 2 &&
                      shares.size(0) == 2 && shares.size(1) == p.samples(),
                  "mixture_log_prob_backward: grad_log_prob must have shape (B,), shares (2, B)");
  for (const Tensor* t : {&grad_log_prob, &shares})
    STD_TORCH_CHECK(t->scalar_type() == real_dtype(x) && t->device() == x.device(),
                    "mixture_log_prob_backward: grad_log_prob and shares must have the parameters' dtype and device");
  Gradients gradients{empty_with_strides_of(p.means), empty_with_strides_of(p.log_scales),
                      empty_with_strides_of(p.log_weights)};
  if (p.samples() > 0) launch(p, dense(grad_log_prob), dense(shares), gradients);
  else std::apply([](auto&... g) { (torch::stable::zero_(g), ...); }, gradients);
  return gradients;
}

}  // namespace led::mixture
