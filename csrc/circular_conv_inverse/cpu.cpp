// Circular convolutions undone on the CPU, with their log-determinant, and the gradients of both.
//
// Each symbol is inverted once, a SIMD vector of frequencies together (circulant_logdet/eliminate.h). From there on a
// SIMD vector holds samples, and all else is products of matrices: of inverse symbols and spectra, and of spectra with
// each other for the weight's gradient. A frequency that is its own mirror has a real symbol: its product costs a
// quarter. Work is split into fixed pieces, whose results are added in order: nothing depends on the threads.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>

#include "circulant_logdet/workspace.h"
#include "circular_conv_inverse/fourier.h"
#include "circular_conv_inverse/product.h"
#include "circular_conv_inverse/spectra.h"

namespace led::circular_conv_inverse {
namespace {

constexpr int64_t kInverseBytes = 1 << 25;   // of inverse symbols that wait to be multiplied, where none are kept
constexpr int64_t kGradientPieces = 8;       // sums over frequencies that are added up at the end
constexpr int64_t kFoldEntries = 1 << 17;    // entries of spectra's products that wait to be folded into taps
constexpr int64_t kFoldFrequencies = 8;      // and of so many frequencies at most
constexpr int64_t kWorkPerThread = 1 << 15;  // multiplications that are worth another thread

// Plain functions, since target_clones does not apply to templates.
#define LED_KERNELS(S, TARGET)                                                                                        \
  TARGET void evaluate(const Spectrum& s, int64_t first, const Real<S>* folded, const Workspace<S>& w) {              \
    evaluate_group(s, first, folded, true, w);                                                                        \
  }                                                                                                                   \
  TARGET double sum_logs(const Workspace<S>& w) { return sum_log_abs_det(w.matrix, w.weights); }                      \
  TARGET void keep_inverses(const LaneMatrix<S>& matrix, const Real<S>* turn_re, const Real<S>* turn_im,              \
                            int64_t count, const Layout& layout, Real<S>* inverses) {                                 \
    write_inverses<S>(matrix, turn_re, turn_im, count, layout, inverses);                                             \
  }                                                                                                                   \
  TARGET void analyse(S, const Fourier<Real<S>>& f, const Real<S>* images, int64_t stride, int64_t count,             \
                      const Layout& layout, Real<S>* spectrum, Real<S>* workspace) {                                  \
    to_spectrum<S>(f, images, stride, count, spectrum, layout.frequency(), layout.width, workspace);                  \
  }                                                                                                                   \
  TARGET void synthesise(S, const Fourier<Real<S>>& f, const Real<S>* spectrum, const Layout& layout, int64_t stride, \
                         int64_t count, Real<S>* images, Real<S>* workspace) {                                        \
    to_images<S>(f, spectrum, layout.frequency(), layout.width, stride, count, images, workspace);                    \
  }                                                                                                                   \
  TARGET void product(S, Entries entries, const Scalars<Real<S>>& left, int64_t rows, int64_t depth, int64_t columns, \
                      const Rows<Real<S>>& right, const Rows<Real<S>>& out) {                                         \
    if (entries == Entries::complex) multiply<Entries::complex, S>(left, rows, depth, columns, right, out);           \
    else if (entries == Entries::conjugate) multiply<Entries::conjugate, S>(left, rows, depth, columns, right, out);  \
    else multiply<Entries::real, S>(left, rows, depth, columns, right, out);                                          \
  }                                                                                                                   \
  TARGET void transpose_samples(S, const Real<S>* spectrum, const Layout& layout, int64_t samples, int64_t stride,    \
                                Real<S>* out) {                                                                       \
    transpose_spectrum<S>(spectrum, layout, samples, stride, out);                                                    \
  }                                                                                                                   \
  TARGET void fold(S, const Real<S>* products, const Layout& layout, const Real<S>* phases, int64_t taps,             \
                   int64_t frequencies, Real<S>* sums) {                                                              \
    fold_products<S>(products, layout, phases, taps, frequencies, sums);                                              \
  }
LED_KERNELS(WideFloat, LED_WIDE)
LED_KERNELS(WideDouble, LED_WIDE)
LED_KERNELS(NarrowFloat, LED_NARROW)
LED_KERNELS(NarrowDouble, LED_NARROW)
#undef LED_KERNELS

template <class F> void parallel(int64_t items, int64_t work_of_item, F f) {
  torch::stable::parallel_for(0, items, std::max<int64_t>(1, kWorkPerThread / std::max<int64_t>(1, work_of_item)), f);
}

// What both directions share: spectra of images and back, products with the inverse symbols.
template <class S> class Solver {
 public:
  using R = Real<S>;
  explicit Solver(const Problem& problem)
      : p_(problem), fourier_(p_.grid), spectra_(spectrum_layout(p_)), inverses_(inverse_layout(p_)) {}

 protected:
  void transform(const R* images, R* spectrum) const {
    each_vector([&](int64_t c, int64_t b, int64_t count, R* workspace) {
      analyse(S{}, fourier_, images + (b * p_.channels + c) * p_.image(), p_.channels * p_.image(), count, spectra_,
              spectrum + c * spectra_.row() + b, workspace);
    });
  }
  void transform_back(const R* spectrum, R* images) const {
    each_vector([&](int64_t c, int64_t b, int64_t count, R* workspace) {
      synthesise(S{}, fourier_, spectrum + c * spectra_.row() + b, spectra_, p_.channels * p_.image(), count,
                 images + (b * p_.channels + c) * p_.image(), workspace);
    });
  }
  // out = inverse symbol * in, or its adjoint * in, at frequencies [first, last); `inverses` is that of `first`.
  void solve(const R* inverses, bool adjoint, int64_t first, int64_t last, const R* in, R* out) const {
    const int64_t row = inverses_.row();
    parallel(last - first, 4 * p_.entries() * p_.samples, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t at = (first + i) * spectra_.frequency();
        const R* inverse = inverses + i * inverses_.frequency();  // transposed
        const Scalars<R> left = {inverse, adjoint ? row : 1, adjoint ? 1 : row, inverses_.width};
        const Entries entries = own_mirror(first + i) ? Entries::real : adjoint ? Entries::conjugate : Entries::complex;
        product(S{}, entries, left, p_.channels, p_.channels, p_.samples,
                Rows<R>{const_cast<R*>(in) + at, spectra_.row(), spectra_.width},
                Rows<R>{out + at, spectra_.row(), spectra_.width});
      }
    });
  }
  bool own_mirror(int64_t frequency) const { return p_.grid.frequency(frequency).weight == 1; }

  const Problem p_;
  const Fourier<R> fourier_;
  const Layout spectra_, inverses_;

 private:
  // f(channel, first sample, number of samples, workspace) for each channel and vector of samples.
  template <class F> void each_vector(F f) const {
    const int64_t vectors = (p_.samples + S::lanes - 1) / S::lanes;
    parallel(p_.channels * vectors, 16 * S::lanes * p_.image(), [&](int64_t begin, int64_t end) {
      const auto workspace = allocate<R>(fourier_.workspace() * kComplex<S>);
      for (int64_t i = begin; i < end; ++i) {
        const int64_t b = i % vectors * S::lanes;
        f(i / vectors, b, std::min<int64_t>(S::lanes, p_.samples - b), workspace.get());
      }
    });
  }
};

template <class S> class Forward : Solver<S> {
  using R = Real<S>;
  using Solver<S>::p_;
  using Solver<S>::inverses_;
  // The last frequencies take narrow vectors where they do not fill more.
  using Tail = Simd<R, kNarrowBytes>;

 public:
  // `inverses` is null where they are not kept.
  Forward(const R* weight, R* inverses, const Problem& problem)
      : Solver<S>(problem),
        spectrum_(p_.grid, p_.taps),
        turns_(centre_phases<R>(p_)),
        folded_(p_.entries() * p_.taps.count()),
        sums_(groups_),
        kept_(inverses) {
    fold_taps<S>(weight, p_.entries(), p_.taps, folded_.data());
    finite_ = std::all_of(weight, weight + folded_.size(), [](R x) { return std::isfinite(x); });
  }

  // `solved`: the spectrum of x.
  R run(const R* y, R* x, R* solved) {
    const auto given = allocate<R>(this->spectra_.size());
    this->transform(y, given.get());
    if (kept_) {
      clear_padding(this->spectra_, p_.samples, solved);
      clear_padding(inverses_, p_.channels, kept_);
    }
    const int64_t group_size = inverses_.frequency() * S::lanes;
    const int64_t chunk =
        kept_ ? groups_ : std::clamp<int64_t>(kInverseBytes / int64_t(sizeof(R)) / group_size, 1, groups_);
    const auto memory = kept_ ? nullptr : allocate<R>(chunk * group_size);
    R* const inverses = kept_ ? kept_ : memory.get();
    for (int64_t group = 0; group < groups_; group += chunk) {
      const int64_t last = std::min(group + chunk, groups_), first_frequency = group * S::lanes;
      invert(group, last, inverses);
      this->solve(inverses, false, first_frequency, std::min(last * S::lanes, p_.grid.frequencies()), given.get(),
                  solved);
    }
    this->transform_back(solved, x);
    return R(-std::accumulate(sums_.begin(), sums_.end(), 0.0));
  }

 private:
  void invert(int64_t first, int64_t last, R* inverses) {
    parallel(last - first, 4 * p_.entries() * p_.channels * S::lanes, [&](int64_t begin, int64_t end) {
      const auto memory = allocate<R>(Workspace<S>::size(p_.channels, p_.taps));
      Workspace<S> workspace(p_.channels, p_.taps, memory.get());
      Workspace<Tail> tail(p_.channels, p_.taps, memory.get());
      for (int64_t i = begin; i < end; ++i) {
        const int64_t frequency = (first + i) * S::lanes;
        const bool few = p_.grid.frequencies() - frequency <= Tail::lanes;
        R* out = inverses + i * S::lanes * inverses_.frequency();
        sums_[first + i] = few ? invert_group(frequency, tail, out) : invert_group(frequency, workspace, out);
      }
    });
  }

  // Σ log|det| of a vector of frequencies, whose inverse symbols are written. One that has none is all NaN.
  template <class V> double invert_group(int64_t first, Workspace<V>& w, R* out) {
    constexpr R nan = std::numeric_limits<R>::quiet_NaN();
    const int64_t count = std::min<int64_t>(V::lanes, p_.grid.frequencies() - first);
    if (!finite_) {
      std::fill(out, out + count * inverses_.frequency(), nan);
      return nan;
    }
    evaluate(spectrum_, first, folded_.data(), w);
    eliminate(w.matrix, Goal::accurate_inverse, w.exchanges);
    const double sum = sum_logs(w);
    alignas(64) R turn_re[V::lanes] = {}, turn_im[V::lanes] = {};
    for (int64_t l = 0; l < count; ++l) {
      const bool singular = w.weights[l] == 0;
      turn_re[l] = singular ? nan : turns_[2 * (first + l)];
      turn_im[l] = singular ? nan : turns_[2 * (first + l) + 1];
    }
    keep_inverses(w.matrix, turn_re, turn_im, count, inverses_, out);
    return sum;
  }

  const Spectrum spectrum_;
  const int64_t groups_ = (p_.grid.frequencies() + S::lanes - 1) / S::lanes;
  const std::vector<R> turns_;
  std::vector<R> folded_;
  std::vector<double> sums_;
  R* const kept_;
  bool finite_;
};

template <class S> class Backward : Solver<S> {
  using R = Real<S>;
  using Solver<S>::p_;
  using Solver<S>::spectra_;
  using Solver<S>::inverses_;

 public:
  Backward(const R* solved, const R* inverses, const Problem& problem)
      : Solver<S>(problem), solved_(solved), inverse_(inverses) {}

  // A null grad_x is 0; a null output is not wanted.
  void run(const R* grad_x, R grad_logdet, R* grad_y, R* grad_weight) {
    const auto memory = grad_x ? allocate<R>(2 * spectra_.size()) : nullptr;
    R* const spectrum = memory ? memory.get() + spectra_.size() : nullptr;
    if (grad_x) {
      this->transform(grad_x, memory.get());
      this->solve(inverse_, true, 0, p_.grid.frequencies(), memory.get(), spectrum);
      if (grad_y) this->transform_back(spectrum, grad_y);
    } else if (grad_y) {
      std::fill(grad_y, grad_y + p_.samples * p_.channels * p_.image(), R(0));
    }
    if (grad_weight) differentiate(spectrum, grad_logdet, grad_weight);
  }

 private:
  // dL = -1/N Re Σ_f Σ_ij M_ij dA_ij, M_ij = Σ_b conj(ŷ'_ib) x̂_jb + N l (A⁻¹)_ji, with N grid cells, the gradients
  // ŷ' with respect to y's spectrum and l with respect to the log-determinant. A(f) is a sum of taps times phases.
  void differentiate(const R* spectrum, R grad_logdet, R* grad_weight) {
    const int64_t taps = p_.taps.count(), frequencies = p_.grid.frequencies();
    const int64_t row = inverses_.row(), entries = p_.channels * row, sums = taps * p_.channels * inverses_.width;
    const int64_t together = std::min({kFoldFrequencies, (frequencies + kGradientPieces - 1) / kGradientPieces,
                                       std::max<int64_t>(1, kFoldEntries / entries)});
    const int64_t chunks = (frequencies + together - 1) / together, pieces = std::min(chunks, kGradientPieces);
    std::vector<R> partial(pieces * sums);
    const std::vector<R> phases = tap_phases<R>(p_);
    parallel(pieces, 4 * p_.entries() * p_.samples * frequencies / pieces, [&](int64_t begin, int64_t end) {
      const auto products = allocate<R>(together * entries), transposed = allocate<R>(p_.samples * row);
      for (int64_t piece = begin; piece < end; ++piece)
        for (int64_t chunk = piece * chunks / pieces; chunk < (piece + 1) * chunks / pieces; ++chunk) {
          const int64_t first = chunk * together, count = std::min(together, frequencies - first);
          for (int64_t i = 0; i < count; ++i)
            correlate(first + i, spectrum, grad_logdet, transposed.get(), products.get() + i * entries);
          fold(S{}, products.get(), inverses_, &phases[2 * taps * first], taps, count, &partial[piece * sums]);
        }
    });
    const double scale = -1.0 / double(p_.image());
    parallel(p_.entries(), taps * pieces, [&](int64_t begin, int64_t end) {
      for (int64_t e = begin; e < end; ++e)
        for (int64_t t = 0; t < taps; ++t) {
          const int64_t at = (t * p_.channels + e / p_.channels) * inverses_.width + e % p_.channels;
          double sum = 0;
          for (int64_t piece = 0; piece < pieces; ++piece) sum += partial[piece * sums + at];
          grad_weight[e * taps + t] = R(sum * scale);
        }
    });
  }

  // M at one frequency.
  void correlate(int64_t f, const R* spectrum, R grad_logdet, R* transposed, R* out) const {
    const int64_t row = inverses_.row(), width = inverses_.width, at = f * spectra_.frequency();
    const R *inverse = inverse_ + f * inverses_.frequency(), scale = grad_logdet * R(p_.image());
    if (spectrum) {
      transpose_samples(S{}, solved_ + at, spectra_, p_.samples, width, transposed);
      product(S{}, this->own_mirror(f) ? Entries::real : Entries::conjugate,
              Scalars<R>{spectrum + at, spectra_.row(), 1, spectra_.width}, p_.channels, p_.samples, p_.channels,
              Rows<R>{transposed, row, width}, Rows<R>{out, row, width});
    } else {
      std::fill(out, out + p_.channels * row, R(0));
    }
    if (scale == 0) return;
    for (int64_t i = 0; i < p_.channels * row; ++i) out[i] += scale * inverse[i];
  }

  const R *const solved_, *const inverse_;
};

template <class T, class F> void with_width(F f) {
  static const bool wide = has_wide_registers();
  if (wide) f(Simd<T, kWideBytes>{});
  else f(Simd<T, kNarrowBytes>{});
}
template <class F> void with_simd(const Tensor& x, F f) {
  if (x.scalar_type() == ScalarType::Double) with_width<double>(f);
  else with_width<float>(f);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> forward(const Tensor& y, const Tensor& weight, bool keep) {
  const Problem problem = problem_of(y, weight);
  const Tensor images = in_format(y, MemoryFormat::Contiguous), taps = in_format(weight, MemoryFormat::Contiguous);
  Tensor x = empty_with_strides_of(images), log_abs_det = empty_strided(y, nullptr, nullptr, 0, y.scalar_type());
  const int64_t spectrum_size = spectrum_layout(problem).size();
  Tensor solved = empty_vector(y, keep ? spectrum_size : 0);
  Tensor inverses = empty_vector(y, keep ? inverse_layout(problem).size() : 0);
  if (problem.channels == 0) {
    torch::stable::zero_(log_abs_det);
    return {x, log_abs_det, solved, inverses};
  }
  with_simd(y, [&](auto simd) {
    using S = decltype(simd);
    using R = Real<S>;
    const auto local = keep ? nullptr : allocate<R>(spectrum_size);
    Forward<S> inverse(static_cast<const R*>(taps.const_data_ptr()),
                       keep ? static_cast<R*>(inverses.mutable_data_ptr()) : nullptr, problem);
    *static_cast<R*>(log_abs_det.mutable_data_ptr()) =
        inverse.run(static_cast<const R*>(images.const_data_ptr()), static_cast<R*>(x.mutable_data_ptr()),
                    keep ? static_cast<R*>(solved.mutable_data_ptr()) : local.get());
  });
  return {x, log_abs_det, solved, inverses};
}

std::tuple<Tensor, Tensor> backward(const std::optional<Tensor>& grad_x, const std::optional<Tensor>& grad_log_abs_det,
                                    const Tensor& y, const Tensor& weight, const Tensor& solved, const Tensor& inverses,
                                    bool need_y, bool need_weight) {
  const Problem problem = problem_of(y, weight);
  STD_TORCH_CHECK(!grad_x || (same_sizes(*grad_x, y) && is_like(*grad_x, y)),
                  "circular_conv_inverse: grad_x must have y's shape, dtype and device");
  STD_TORCH_CHECK(grad_x || !need_y, "circular_conv_inverse: a gradient to y needs grad_x");
  check_log_gradient(grad_log_abs_det, weight);
  const auto is_kept = [&](const Tensor& t, int64_t size) {
    return t.numel() == size && t.is_contiguous() && is_like(t, y);
  };
  STD_TORCH_CHECK(is_kept(solved, spectrum_layout(problem).size()) && is_kept(inverses, inverse_layout(problem).size()),
                  "circular_conv_inverse: solved and inverses must come from the forward pass");
  const int64_t empty[] = {0};
  const int64_t stride[] = {1};
  const auto output = [&](const Tensor& like, bool needed) {
    return needed ? empty_with_strides_of(in_format(like, MemoryFormat::Contiguous))
                  : empty_strided(like, empty, stride, 1, like.scalar_type());
  };
  Tensor grad_y = output(y, need_y), grad_weight = output(weight, need_weight);
  if (problem.channels == 0) return {grad_y, grad_weight};
  std::optional<Tensor> images;
  if (grad_x) images = in_format(*grad_x, MemoryFormat::Contiguous);
  with_simd(y, [&](auto simd) {
    using S = decltype(simd);
    using R = Real<S>;
    Backward<S> gradient(static_cast<const R*>(solved.const_data_ptr()),
                         static_cast<const R*>(inverses.const_data_ptr()), problem);
    gradient.run(images ? static_cast<const R*>(images->const_data_ptr()) : nullptr,
                 grad_log_abs_det ? *static_cast<const R*>(grad_log_abs_det->const_data_ptr()) : R(0),
                 need_y ? static_cast<R*>(grad_y.mutable_data_ptr()) : nullptr,
                 need_weight ? static_cast<R*>(grad_weight.mutable_data_ptr()) : nullptr);
  });
  return {grad_y, grad_weight};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(led_fast, CPU, m) {
  m.impl("circular_conv_inverse", TORCH_BOX(&forward));
  m.impl("circular_conv_inverse_backward", TORCH_BOX(&backward));
}

}  // namespace led::circular_conv_inverse
