// The log-determinant of circular convolutions on the CPU, and its gradient in the same pass: the symbols at a SIMD
// vector of frequencies (16 in fp32 with AVX-512) are evaluated, eliminated and dropped. Work is split by batch and
// frequency into fixed pieces, whose results are added in order: nothing depends on the number of threads.
#include <algorithm>
#include <numeric>

#include "circulant_logdet/op.h"
#include "circulant_logdet/workspace.h"

namespace led::circulant_logdet {
namespace {

constexpr int64_t kGroupsPerGradient = 4;  // most SIMD groups of frequencies whose gradients one piece adds up
constexpr int64_t kGradientPieces = 2;     // their number is a multiple, which threads share evenly
constexpr int64_t kFoldOnce = 1 << 14;     // matrices of more entries fold their taps for every group, to save memory

int64_t gradient_pieces(int64_t groups) {
  constexpr int64_t together = kGroupsPerGradient * kGradientPieces;
  return std::min(groups, (groups + together - 1) / together * kGradientPieces);
}

// Plain functions, since target_clones does not apply to templates.
#define LED_KERNELS(S, TARGET)                                                                                      \
  TARGET void evaluate(const Spectrum& s, int64_t first, const Real<S>* taps, bool folded, const Workspace<S>& w) { \
    evaluate_group(s, first, taps, folded, w);                                                                      \
  }                                                                                                                 \
  TARGET double sum_logs(const Workspace<S>& w) { return sum_log_abs_det(w.matrix, w.weights); }                    \
  TARGET void differentiate(const Spectrum& s, const Workspace<S>& w, int64_t stride, Real<S>* gradient) {          \
    accumulate_gradient(w.matrix, w.basis, w.weights, s.taps, stride, gradient);                                    \
  }
LED_KERNELS(WideFloat, LED_WIDE)
LED_KERNELS(WideDouble, LED_WIDE)
LED_KERNELS(NarrowFloat, LED_NARROW)
LED_KERNELS(NarrowDouble, LED_NARROW)
#undef LED_KERNELS

template <class S> class Computation {
  // The last frequencies take narrow vectors where they do not fill more.
  using Tail = Simd<Real<S>, kNarrowBytes>;

 public:
  Computation(const Real<S>* weight, Real<S>* logdet, Real<S>* gradient, const Problem& problem)
      : p_(problem),
        spectrum_(p_.grid, p_.taps),
        weight_(weight),
        logdet_(logdet),
        gradient_(gradient),
        folded_(p_.entries() <= kFoldOnce ? p_.batch * p_.weight_size() : 0),
        sums_(p_.batch * groups_),
        partial_(gradient ? p_.batch * pieces_ * partial_size_ : 0) {
    if (!folded_.empty()) fold_taps<S>(weight, p_.batch * p_.entries(), p_.taps, folded_.data());
    for (int64_t b = 0; b < p_.batch; ++b) {
      const Real<S>* w = weight + b * p_.weight_size();
      finite_[b] = std::all_of(w, w + p_.weight_size(), [](Real<S> x) { return std::isfinite(x); });
    }
  }

  void run() {
    torch::stable::parallel_for(0, p_.batch * pieces_, 1, [&](int64_t begin, int64_t end) {
      const auto memory = allocate<Real<S>>(Workspace<S>::size(p_.channels, p_.taps));
      Workspace<S> workspace(p_.channels, p_.taps, memory.get());
      Workspace<Tail> tail(p_.channels, p_.taps, memory.get());
      for (int64_t i = begin; i < end; ++i) compute_piece(i / pieces_, i % pieces_, workspace, tail);
    });
    for (int64_t b = 0; b < p_.batch; ++b)
      logdet_[b] = Real<S>(std::accumulate(&sums_[b * groups_], &sums_[b * groups_] + groups_, 0.0));
    if (!gradient_) return;
    torch::stable::parallel_for(0, p_.batch * p_.entries(), 4096, [&](int64_t begin, int64_t end) {
      for (int64_t e = begin; e < end; ++e) unfold_gradient(e / p_.entries(), e % p_.entries());
    });
  }

 private:
  void compute_piece(int64_t b, int64_t piece, Workspace<S>& workspace, Workspace<Tail>& tail) {
    Real<S>* gradient = gradient_ ? &partial_[(b * pieces_ + piece) * partial_size_] : nullptr;
    const int64_t first = piece * groups_ / pieces_, last = (piece + 1) * groups_ / pieces_;
    if (!finite_[b]) {
      constexpr Real<S> nan = std::numeric_limits<Real<S>>::quiet_NaN();
      std::fill(&sums_[b * groups_ + first], &sums_[b * groups_] + last, nan);
      if (gradient) std::fill(gradient, gradient + partial_size_, nan);
      return;
    }
    for (int64_t group = first; group < last; ++group) {
      const int64_t frequency = group * S::lanes;
      const bool few = p_.grid.frequencies() - frequency <= Tail::lanes;
      sums_[b * groups_ + group] =
          few ? compute_group(b, frequency, gradient, tail) : compute_group(b, frequency, gradient, workspace);
    }
  }

  // Σ log|det| of a vector of frequencies from `first` on. Adds to the gradient.
  template <class V> double compute_group(int64_t b, int64_t first, Real<S>* gradient, Workspace<V>& w) {
    const bool folded = !folded_.empty();
    evaluate(spectrum_, first, (folded ? folded_.data() : weight_) + b * p_.weight_size(), folded, w);
    eliminate(w.matrix, gradient ? Goal::inverse : Goal::determinant, w.exchanges);
    const double sum = sum_logs(w);
    if (gradient) differentiate(spectrum_, w, padded_, gradient);
    return sum;
  }

  // Adds up the pieces' gradients with respect to folded taps, and hands each to its pair of taps.
  void unfold_gradient(int64_t b, int64_t entry) {
    const int64_t n = p_.channels, count = p_.taps.count(), sines = p_.taps.sines(), cosines = p_.taps.cosines();
    const Real<S>* folded = &partial_[b * pieces_ * partial_size_ + entry % n * n + entry / n];
    Real<S>* out = gradient_ + b * p_.weight_size() + entry * count;
    const auto total = [&](int64_t t) {
      double sum = 0;
      for (int64_t piece = 0; piece < pieces_; ++piece) sum += folded[piece * partial_size_ + t * padded_];
      return sum;
    };
    for (int64_t t = 0; t < cosines; ++t) {
      const double even = total(t), odd = t < sines ? total(cosines + t) : 0;
      out[t] = Real<S>(even + odd);
      if (t < sines) out[count - 1 - t] = Real<S>(even - odd);
    }
  }

  const Problem p_;
  const Spectrum spectrum_;
  const Real<S>* const weight_;
  Real<S>* const logdet_;
  Real<S>* const gradient_;
  const int64_t groups_ = (p_.grid.frequencies() + S::lanes - 1) / S::lanes;
  const int64_t pieces_ = gradient_ ? gradient_pieces(groups_) : groups_;
  const int64_t padded_ = whole_vectors<S>(p_.entries());
  const int64_t partial_size_ = padded_ * p_.taps.count();
  std::vector<Real<S>> folded_;
  std::vector<double> sums_;
  std::vector<Real<S>> partial_;
  std::vector<char> finite_ = std::vector<char>(p_.batch);
};

template <class T> void compute(const void* weight, void* logdet, void* gradient, const Problem& problem) {
  const auto* w = static_cast<const T*>(weight);
  auto *out = static_cast<T*>(logdet), *grad = static_cast<T*>(gradient);
  static const bool wide = has_wide_registers();
  if (wide) Computation<Simd<T, kWideBytes>>(w, out, grad, problem).run();
  else Computation<Simd<T, kNarrowBytes>>(w, out, grad, problem).run();
}

std::tuple<Tensor, std::optional<Tensor>> logdet_cpu(const Tensor& weight, int64_t rows, int64_t columns,
                                                     bool with_gradient) {
  return logdet_op(
      weight, rows, columns, with_gradient, [&](const void* w, void* logdet, void* gradient, const Problem& problem) {
        (weight.scalar_type() == ScalarType::Double ? compute<double> : compute<float>)(w, logdet, gradient, problem);
      });
}

Tensor forward(const Tensor& weight, int64_t rows, int64_t columns) {
  return std::get<0>(logdet_cpu(weight, rows, columns, false));
}
std::tuple<Tensor, Tensor> forward_with_gradient(const Tensor& weight, int64_t rows, int64_t columns) {
  const auto [logdet, gradient] = logdet_cpu(weight, rows, columns, true);
  return {logdet, *gradient};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(led_fast, CPU, m) {
  m.impl("circulant_logdet", TORCH_BOX(&forward));
  m.impl("circulant_logdet_with_grad", TORCH_BOX(&forward_with_gradient));
}

}  // namespace led::circulant_logdet
