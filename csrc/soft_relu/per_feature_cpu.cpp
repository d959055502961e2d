// soft-ReLU and its inverse with parameters per feature on the CPU. A feature's elements lie side by side in runs: long
// runs are passes with constant parameters; for short ones a table has the parameters of each place of a sample.
#include "soft_relu/cpu.h"
#include "soft_relu/per_feature.h"
#include "soft_relu/per_feature_op.h"

namespace led::soft_relu {
namespace {

constexpr int64_t kLongRun = 64;
constexpr int64_t kTableSize = 256;         // elements, at least, where samples repeat: whole registers
constexpr int kFlush = 16;                  // blocks, whose sums are kept in Real
constexpr int64_t kUnits = 64;              // groups of samples that leave sums of their own, at most
constexpr int64_t kElementsOfFeature = 64;  // in a group, at least, so that the sums are few beside the elements
constexpr int kSums = FeatureTerms<float>::kSums;

double number(const Numbers& numbers, int parameter, int64_t feature) {
  const void* const data = numbers.tensors[parameter].const_data_ptr();
  return numbers.wide() ? static_cast<const double*>(data)[feature] : static_cast<const float*>(data)[feature];
}

// The parameters of every feature, and which ones an element has.
template <class P> struct Features {
  using Real = decltype(P::u0);
  int64_t features, run;  // elements of a feature side by side
  bool long_runs;
  int64_t table_size = 0, stride = 0;  // places, a multiple of the sample's period, and with kBlock more to read
  int safe_factors = 16;
  std::vector<P> parameters;
  std::vector<Real> numbers;  // of the table

  Features(const FeatureShape& s, const Numbers& given)
      : features(s.features), run(s.run), long_runs(s.run >= kLongRun) {
    for (int64_t f = 0; f < features; ++f) {
      const double r = number(given, 0, f);
      parameters.emplace_back(r, number(given, 1, f), 1 - r, number(given, 2, f), number(given, 3, f));
      safe_factors = std::min(safe_factors, parameters[f].safe_factors);
    }
    if (long_runs) return;
    const int64_t period = features * run, n = s.row_size;
    table_size = n < kBlock ? n * kRegister : std::min(n, (kTableSize + period - 1) / period * period);
    stride = table_size + kBlock;
    numbers.resize(P::kNumbers * stride);
    for (int64_t place = 0; place < stride; ++place) {
      Real* number = &numbers[place];
      parameters[feature_at(place)].each([&](Real& field) { *number = field, number += stride; });
    }
  }
  int64_t feature_at(int64_t place) const { return place / run % features; }
  LED_INLINE Table<Real, P> table(int64_t place) const { return {numbers.data() + place, stride}; }
};

// Calls f(offset, elements, where their parameters come from) for stretches of n elements from `start` on: those of one
// sample, or of whole ones.
template <class P, class F> LED_INLINE void for_each_segment(int64_t start, int64_t n, const Features<P>& f, F visit) {
  const int64_t period = f.long_runs ? f.run : f.table_size;
  for (int64_t i = 0; i < n;) {
    const int64_t at = start + i, size = std::min(n - i, period - at % period);
    if (f.long_runs) visit(i, size, Constant<P>{f.parameters[f.feature_at(at)]});
    else visit(i, size, f.table(at % period));
    i += size;
  }
}

// Σ log L' of n elements from `start` on of one sample.
template <class T, class P>
LED_INLINE double forward_sample(const T* x, T* y, int64_t start, int64_t n, const Features<P>& f) {
  LogSum<RealOf<T>> sum;
  for_each_segment(start, n, f, [&](int64_t i, int64_t size, const auto& source) __attribute__((always_inline)) {
    forward_segment(x + i, y + i, size, source, f.safe_factors, sum);
  });
  return sum.total();
}

template <class T, class P>
LED_INLINE void forward_samples(const T* x, T* y, int64_t start, int64_t rows, int64_t n, double* sums,
                                const Features<P>& f) {
  int64_t row = 0;
  if (n < kBlock && !f.long_runs && start == 0 && f.table_size == n * kRegister) {
    for (; row + kRegister <= rows; row += kRegister)
      forward_short_rows(x + row * n, y + row * n, n, sums + row, f.table(0), f.safe_factors);
  }
  for (; row < rows; ++row) sums[row] = forward_sample(x + row * n, y + row * n, start, n, f);
}

template <class T, class Source>
LED_INLINE void backward_element(const T* x, const T* gy, RealOf<T> gl, T* gx, int64_t l, const Source& from,
                                 RealOf<T>* sums, int64_t stride) {
  const auto terms = feature_terms(load(x[l]), load(gy[l]), gl, from.at(l));
  store(gx + l, terms.gradient);
  sums[l] += terms.sums[0];
  sums[l + stride] += terms.sums[1];
  sums[l + 2 * stride] += terms.sums[2];
  sums[l + 3 * stride] += terms.sums[3];
}

// gx for n elements, n a multiple of kRegister, and what they add to sums, of which there are kSums times `stride`.
template <int kGlStride, class T, class Source>
LED_INLINE void backward_loop(const T* x, const T* gy, const RealOf<T>* gl, T* gx, int64_t n, const Source& source,
                              RealOf<T>* sums, int64_t stride) {
  const Source from = source;
  LED_SIMD
  for (int64_t l = 0; l < n; ++l) backward_element(x, gy, gl[l * kGlStride], gx, l, from, sums, stride);
}

// The same for any n.
template <class T, class Source>
LED_INLINE void backward_segment(const T* x, const T* gy, RealOf<T> gl, T* gx, int64_t n, const Source& from,
                                 RealOf<T>* sums, int64_t stride) {
  const int64_t whole = n / kRegister * kRegister, rest = n - whole;
  backward_loop<0>(x, gy, &gl, gx, whole, from, sums, stride);
  if (rest) {
    Tail<T> tail(x + whole, rest), tail_gy(gy + whole, rest);
    RealOf<T> of_tail[kSums * kRegister] = {};
    backward_loop<0>(tail.elements, tail_gy.elements, &gl, tail.elements, kRegister, from.from(whole), of_tail,
                     kRegister);
    std::memcpy(gx + whole, tail.elements, rest * sizeof(T));
    for (int k = 0; k < kSums; ++k)
      for (int64_t l = 0; l < rest; ++l) sums[k * stride + whole + l] += of_tail[k * kRegister + l];
  }
}

// Σ over a run of one feature, whose kSums sums lie `features` apart in `sums`.
template <class T, class P>
LED_INLINE void backward_run(const T* x, const T* gy, RealOf<T> gl, T* gx, int64_t n, const P& p, double* sums,
                             int64_t features) {
  for (int64_t start = 0; start < n; start += kFlush * kBlock) {
    RealOf<T> of_lanes[kSums * kBlock] = {};
    const int64_t stop = std::min(n, start + kFlush * kBlock);
    for (int64_t i = start; i < stop; i += kBlock)
      backward_segment(x + i, gy + i, gl, gx + i, std::min<int64_t>(kBlock, stop - i), Constant<P>{p}, of_lanes,
                       kBlock);
    for (int k = 0; k < kSums; ++k) {
      double sum = 0;
      _Pragma("omp simd reduction(+:sum)") for (int l = 0; l < kBlock; ++l) sum += of_lanes[k * kBlock + l];
      sums[k * features] += sum;
    }
  }
}

// Whole samples; sums: kSums * features, to which they add. scratch: kSums * stride of the table, zeros.
template <class T, class P>
LED_INLINE void backward_samples(const T* x, const T* gy, const RealOf<T>* gl, T* gx, int64_t rows, int64_t n,
                                 const Features<P>& f, double* sums, RealOf<T>* scratch) {
  if (f.long_runs) {
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t i = 0; i < n; i += f.run) {
        const int64_t feature = f.feature_at(i), at = row * n + i;
        backward_run(x + at, gy + at, gl[row], gx + at, f.run, f.parameters[feature], sums + feature, f.features);
      }
    return;
  }
  const auto flush = [&]() __attribute__((always_inline)) {
    for (int k = 0; k < kSums; ++k)
      for (int64_t place = 0; place < f.table_size; ++place) {
        sums[k * f.features + f.feature_at(place)] += scratch[k * f.stride + place];
        scratch[k * f.stride + place] = 0;
      }
  };
  int64_t row = 0;
  int passes = 0;
  if (n < kBlock) {
    RealOf<T> spread[kRegister * kBlock];
    for (; row + kRegister <= rows; row += kRegister) {
      for (int64_t i = 0; i < kRegister; ++i) std::fill_n(spread + i * n, n, gl[row + i]);
      const int64_t at = row * n;
      backward_loop<1>(x + at, gy + at, spread, gx + at, kRegister * n, f.table(0), scratch, f.stride);
      if (++passes % kFlush == 0) flush();
    }
  }
  for (; row < rows; ++row) {
    for (int64_t i = 0; i < n; i += f.table_size) {
      const int64_t at = row * n + i;
      backward_segment(x + at, gy + at, gl[row], gx + at, std::min(f.table_size, n - i), f.table(0), scratch, f.stride);
      if (++passes % kFlush == 0) flush();
    }
  }
  flush();
}

template <class T, class Source>
LED_INLINE void score_element(const T* x, const T* score, T* out, int64_t l, const Source& from) {
  const auto terms = backward_terms(load(x[l]), from.at(l));
  store(out + l, (load(score[l]) - terms.log_slope) / terms.slope);
}

// The score behind n elements, n a multiple of kRegister.
template <class T, class Source>
LED_INLINE void score_loop(const T* x, const T* score, T* out, int64_t n, const Source& source) {
  const Source from = source;
  LED_SIMD
  for (int64_t l = 0; l < n; ++l) score_element(x, score, out, l, from);
}

// The same for any n.
template <class T, class Source>
LED_INLINE void score_segment(const T* x, const T* score, T* out, int64_t n, const Source& from) {
  const int64_t whole = n / kRegister * kRegister, rest = n - whole;
  score_loop(x, score, out, whole, from);
  if (rest) {
    Tail<T> tail(x + whole, rest), tail_score(score + whole, rest);
    score_loop(tail.elements, tail_score.elements, tail.elements, kRegister, from.from(whole));
    std::memcpy(out + whole, tail.elements, rest * sizeof(T));
  }
}

#define LED_KERNELS(T, P)                                                                                      \
  LED_MULTIVERSION void forward(const T* x, T* y, int64_t start, int64_t rows, int64_t n, double* sums,        \
                                const Features<P>& f) {                                                        \
    forward_samples(x, y, start, rows, n, sums, f);                                                            \
  }                                                                                                            \
  LED_MULTIVERSION void backward(const T* x, const T* gy, const RealOf<T>* gl, T* gx, int64_t rows, int64_t n, \
                                 const Features<P>& f, double* sums, RealOf<T>* scratch) {                     \
    backward_samples(x, gy, gl, gx, rows, n, f, sums, scratch);                                                \
  }
LED_KERNELS(double, Parameters<double>)
LED_KERNELS(float, Parameters<float>)
LED_KERNELS(Half, Parameters<float>)
LED_KERNELS(BFloat16, Parameters<float>)
LED_KERNELS(double, InverseParameters<double>)
LED_KERNELS(float, InverseParameters<float>)
LED_KERNELS(Half, InverseParameters<float>)
LED_KERNELS(BFloat16, InverseParameters<float>)
#undef LED_KERNELS

#define LED_KERNELS(T)                                                                                              \
  LED_MULTIVERSION void score(const T* x, const T* score, T* out, int64_t start, int64_t n,                         \
                              const Features<Parameters<RealOf<T>>>& f) {                                           \
    for_each_segment(start, n, f, [&](int64_t i, int64_t size, const auto& source) __attribute__((always_inline)) { \
      score_segment(x + i, score + i, out + i, size, source);                                                       \
    });                                                                                                             \
  }
LED_KERNELS(double)
LED_KERNELS(float)
LED_KERNELS(Half)
LED_KERNELS(BFloat16)
#undef LED_KERNELS

template <class T, class P>
void forward_all(const T* x, T* y, RealOf<T>* logs, const FeatureShape& s, const Features<P>& f) {
  const int64_t chunks = chunks_of(s);
  std::vector<double> sums(s.rows * chunks);
  for_each_piece(s, [&](int64_t row, int64_t start, int64_t rows, int64_t n) {
    const int64_t offset = row * s.row_size + start;
    forward(x + offset, y + offset, start, rows, n, sums.data() + row * chunks + start / kChunk, f);
  });
  for (int64_t row = 0; row < s.rows; ++row)
    logs[row] = RealOf<T>(P::direction * std::accumulate(&sums[row * chunks], &sums[row * chunks] + chunks, 0.0));
}

template <class T, class P>
void backward_all(const T* x, const T* gy, const RealOf<T>* gl, T* gx, Tensor& grads, const FeatureShape& s,
                  const Features<P>& f, const Numbers& numbers) {
  const auto ceil = [](int64_t a, int64_t b) { return (a + b - 1) / b; };
  const int64_t of_sample = s.row_size / s.features;
  const int64_t group = std::max({ceil(s.rows, kUnits), ceil(kElementsOfFeature, of_sample), ceil(kChunk, s.row_size)});
  const int64_t units = ceil(s.rows, group), size = kSums * s.features;
  std::vector<double> sums(units * size);
  torch::stable::parallel_for(0, units, 1, [&](int64_t begin, int64_t end) {
    std::vector<RealOf<T>> scratch(kSums * f.stride);
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t row = unit * group, offset = row * s.row_size;
      backward(x + offset, gy + offset, gl + row, gx + offset, std::min(group, s.rows - row), s.row_size, f,
               sums.data() + unit * size, scratch.data());
    }
  });
  for (int64_t i = 0; i < size; ++i) {
    double sum = 0;
    for (int64_t unit = 0; unit < units; ++unit) sum += sums[unit * size + i];
    const int64_t feature = i % s.features;
    const double r = number(numbers, 0, feature), k = number(numbers, 1, feature);
    const double gradient = parameter_gradient(int(i / s.features), sum, r, k);
    if (numbers.wide()) static_cast<double*>(grads.mutable_data_ptr())[i] = gradient;
    else static_cast<float*>(grads.mutable_data_ptr())[i] = float(gradient);
  }
}

// Calls f with null pointers of the kernels' type and of its parameters' type.
template <class F> void dispatch_map(ScalarType dtype, bool inverse, F f) {
  dispatch("soft_relu_per_feature", dtype, [&](auto* type) {
    using Real = RealOf<std::remove_pointer_t<decltype(type)>>;
    if (inverse) f(type, static_cast<InverseParameters<Real>*>(nullptr));
    else f(type, static_cast<Parameters<Real>*>(nullptr));
  });
}

std::tuple<Tensor, Tensor> per_feature_cpu(const Tensor& x, const Tensor& ratio, const Tensor& sharpness,
                                           const Tensor& u0, const Tensor& t0, bool inverse) {
  return per_feature_op(
      x, {ratio, sharpness, u0, t0},
      [&](const Tensor& dense, const Numbers& numbers, Tensor& y, Tensor& log_abs_det, const FeatureShape& s) {
        dispatch_map(x.scalar_type(), inverse, [&](auto* type, auto* map) {
          using T = std::remove_pointer_t<decltype(type)>;
          using P = std::remove_pointer_t<decltype(map)>;
          using Real = RealOf<T>;
          const Features<P> f(s, numbers);
          forward_all(static_cast<const T*>(dense.const_data_ptr()), static_cast<T*>(y.mutable_data_ptr()),
                      static_cast<Real*>(log_abs_det.mutable_data_ptr()), s, f);
        });
      });
}

std::tuple<Tensor, Tensor> per_feature_backward_cpu(const Tensor& x, std::optional<Tensor> grad_y,
                                                    std::optional<Tensor> grad_log, const Tensor& ratio,
                                                    const Tensor& sharpness, const Tensor& u0, const Tensor& t0,
                                                    bool inverse) {
  return per_feature_backward_op(x, grad_y, grad_log, {ratio, sharpness, u0, t0},
                                 [&](const Tensor& dense, const void* gy, const void* gl, const Numbers& numbers,
                                     Tensor& gx, Tensor& grads, const FeatureShape& s) {
                                   dispatch_map(x.scalar_type(), inverse, [&](auto* type, auto* map) {
                                     using T = std::remove_pointer_t<decltype(type)>;
                                     using P = std::remove_pointer_t<decltype(map)>;
                                     using Real = RealOf<T>;
                                     const Features<P> f(s, numbers);
                                     backward_all(static_cast<const T*>(dense.const_data_ptr()),
                                                  static_cast<const T*>(gy), static_cast<const Real*>(gl),
                                                  static_cast<T*>(gx.mutable_data_ptr()), grads, s, f, numbers);
                                   });
                                 });
}

Tensor per_feature_score_cpu(const Tensor& x, const Tensor& score_of_x, const Tensor& ratio, const Tensor& sharpness,
                             const Tensor& u0, const Tensor& t0) {
  const MemoryFormat format = sample_dense_format(x);
  const FeatureShape shape = feature_shape_of(x, format);
  const Numbers numbers = numbers_of(x, {ratio, sharpness, u0, t0});
  STD_TORCH_CHECK(score_of_x.scalar_type() == x.scalar_type() && same_sizes(score_of_x, x),
                  "soft_relu_per_feature_score: the score must have x's shape and dtype");
  const Tensor dense = in_format(x, format), dense_score = in_format(score_of_x, format);
  Tensor out = empty_with_strides_of(dense);
  if (x.numel() == 0) return out;
  dispatch("soft_relu_per_feature_score", x.scalar_type(), [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const Features<Parameters<RealOf<T>>> f(shape, numbers);
    const auto* const values = static_cast<const T*>(dense.const_data_ptr());
    const auto* const scores = static_cast<const T*>(dense_score.const_data_ptr());
    auto* const to = static_cast<T*>(out.mutable_data_ptr());
    for_each_piece(shape, [&](int64_t row, int64_t start, int64_t rows, int64_t n) {
      const int64_t offset = row * shape.row_size + start;
      score(values + offset, scores + offset, to + offset, start, rows * n, f);
    });
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(led_fast, CPU, m) {
  m.impl("soft_relu_per_feature_score", TORCH_BOX(&per_feature_score_cpu));
  m.impl("soft_relu_per_feature", TORCH_BOX(&per_feature_cpu));
  m.impl("soft_relu_per_feature_backward", TORCH_BOX(&per_feature_backward_cpu));
}

}  // namespace led::soft_relu
