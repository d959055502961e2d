// What soft-ReLU's CPU kernels share. Chunks are fixed and summed in order: the result does not depend on the threads.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "common/dispatch.h"
#define LED_FUNCTION LED_INLINE
#include "soft_relu/inverse.h"
#include "soft_relu/op.h"

namespace led::soft_relu {
namespace {

constexpr int64_t kChunk = 16384;  // elements: long enough to hide a call, short enough to share a sample among threads
constexpr int kBlock = 64;         // elements a loop: four registers of the widest machine
constexpr int kRegister = 16;      // loops run over multiples of it, so that no scalar remainder is left

template <class T> LED_INLINE T infinity() {
  if constexpr (std::is_same_v<T, Half>) return T{0x7c00};
  else if constexpr (std::is_same_v<T, BFloat16>) return T{0x7f80};
  else return std::numeric_limits<T>::infinity();
}

int64_t chunks_of(const Shape& s) { return (s.row_size + kChunk - 1) / kChunk; }
LED_INLINE int round_up(int64_t n) { return int((n + kRegister - 1) / kRegister * kRegister); }

// A copy of n < kBlock elements, padded to whole registers by infinity: L'(inf) = 1 adds nothing to a logarithm.
template <class T> struct Tail {
  T elements[kBlock];
  LED_INLINE Tail(const T* from, int64_t n) {
    for (T& e : elements) e = infinity<T>();
    std::memcpy(elements, from, n * sizeof(T));
  }
};

// log of a product of slope numerators. The factors lie in lanes and are absorbed a few at a time into mantissas and
// exponents, so that nothing underflows however many there are. A NaN gets lost, but not in the sum of log1p.
template <class Real, int Lanes> struct LogProduct {
  Real mantissa[Lanes];
  typename Format<Real>::Int exponent[Lanes] = {};

  LED_INLINE LogProduct() {
    for (Real& m : mantissa) m = 1;
  }
  // Each product must be a normal number.
  LED_INLINE void absorb(const Real (&product)[Lanes]) {
    LED_SIMD
    for (int l = 0; l < Lanes; ++l) {
      typename Format<Real>::Int e;
      mantissa[l] = split_exponent(mantissa[l] * product[l], &e);
      exponent[l] += e;
    }
  }
  // log of the product over all lanes.
  LED_INLINE double log() const {
    double product = 1;
    int64_t exponents = 0;
    _Pragma("omp simd reduction(*:product) reduction(+:exponents)") for (int l = 0; l < Lanes; ++l) {
      product *= mantissa[l];
      exponents += exponent[l];
    }
    return log_normal(product) + exponents * 0.69314718055994530942;
  }
};

// Where the parameters of an element come from: the same ones for all, or ...
template <class P> struct Constant {
  P parameters;
  LED_INLINE const P& at(int64_t) const { return parameters; }
  LED_INLINE Constant from(int64_t) const { return *this; }
};

// ... for each place of a table, one row of which holds one number of them all.
template <class Real, class P> struct Table {
  const Real* numbers;
  int64_t stride;
  LED_INLINE P at(int64_t place) const {
    P p;
    const Real* number = numbers + place;
    p.each([&](Real& field) __attribute__((always_inline)) { field = *number, number += stride; });
    return p;
  }
  LED_INLINE Table from(int64_t place) const { return {numbers + place, stride}; }
};

// y = L(x) for element l of a loop. A function, because the vectoriser takes no structs that a loop itself declares.
template <class T, class Source>
LED_INLINE ForwardTerms<RealOf<T>> forward_element(const T* x, T* y, int64_t l, const Source& from) {
  const auto terms = forward_terms(load(x[l]), from.at(l));
  store(y + l, terms.value);
  return terms;
}

// y = L(x) for n elements, n a multiple of kRegister.
template <class T, class Source>
LED_INLINE void forward_loop(const T* x, T* y, int n, RealOf<T>* numerator, RealOf<T>* log1p, const Source& source) {
  const Source from = source;
  LED_SIMD
  for (int l = 0; l < n; ++l) {
    const auto terms = forward_element(x, y, l, from);
    numerator[l] = terms.numerator;
    log1p[l] = terms.log1p;
  }
}

// Σ log L' of what has been added, of which log1p_total is the subtrahend.
template <class Real> struct LogSum {
  LogProduct<Real, kBlock> numerators;
  double log1p_total = 0;
  LED_INLINE double total() const { return numerators.log() - log1p_total; }
};

// y = L(x) for n elements side by side; adds to the sum.
template <class T, class Source>
LED_INLINE void forward_segment(const T* x, T* y, int64_t n, const Source& source, int safe_factors,
                                LogSum<RealOf<T>>& log_sum) {
  using Real = RealOf<T>;
  const Source from = source;
  Real product[kBlock], sum[kBlock];
  double log1p_total = 0;
  const auto absorb = [&]() __attribute__((always_inline)) {
    log_sum.numerators.absorb(product);
    _Pragma("omp simd reduction(+:log1p_total)") for (int l = 0; l < kBlock; ++l) log1p_total += sum[l];
  };
  int64_t i = 0;
  while (i + kBlock <= n) {
    for (int l = 0; l < kBlock; ++l) product[l] = 1, sum[l] = 0;
    const int64_t stop = std::min<int64_t>(n - kBlock, i + int64_t(safe_factors - 1) * kBlock);
    for (; i <= stop; i += kBlock) {
      const Source here = from.from(i);
      LED_SIMD
      for (int l = 0; l < kBlock; ++l) {
        const auto terms = forward_element(x + i, y + i, l, here);
        product[l] *= terms.numerator;
        sum[l] += terms.log1p;
      }
    }
    absorb();
  }
  if (i < n) {
    Tail<T> tail(x + i, n - i);
    for (int l = 0; l < kBlock; ++l) product[l] = 1, sum[l] = 0;
    forward_loop(tail.elements, tail.elements, round_up(n - i), product, sum, from.from(i));
    std::memcpy(y + i, tail.elements, (n - i) * sizeof(T));
    absorb();
  }
  log_sum.log1p_total += log1p_total;
}

// kRegister rows of n < kBlock elements at once, so that their elements are whole registers.
template <class T, class Source>
LED_INLINE void forward_short_rows(const T* x, T* y, int64_t n, double* sums, const Source& source, int safe_factors) {
  using Real = RealOf<T>;
  Real numerators[kRegister * kBlock], log1ps[kRegister * kBlock];
  forward_loop(x, y, int(n) * kRegister, numerators, log1ps, source);
  double products[kRegister];
  for (int row = 0; row < kRegister; ++row) {
    double product = 1, log_slope = 0;
    int factors = 0;
    for (int64_t i = row * n; i < (row + 1) * n; ++i) {
      if (factors++ == safe_factors) log_slope += log_normal(product), product = 1, factors = 1;
      product *= numerators[i];
      log_slope -= log1ps[i];
    }
    products[row] = product;
    sums[row] = log_slope;
  }
  LED_SIMD
  for (int row = 0; row < kRegister; ++row) sums[row] += log_normal(products[row]);
}

// Calls f(row, start, rows, n) for pieces that cover all samples: n elements from `start` on, of `rows` samples from
// `row` on. A piece is a chunk of one sample or several whole samples.
template <class F> void for_each_piece(const Shape& s, const F& f) {
  const int64_t chunks = chunks_of(s);
  torch::stable::parallel_for(0, s.rows * chunks, std::max<int64_t>(1, kChunk / s.row_size),
                              [&](int64_t begin, int64_t end) {
                                if (chunks == 1) return f(begin, 0, end - begin, s.row_size);
                                for (int64_t c = begin; c < end; ++c) {
                                  const int64_t start = c % chunks * kChunk;
                                  f(c / chunks, start, 1, std::min(kChunk, s.row_size - start));
                                }
                              });
}

}  // namespace
}  // namespace led::soft_relu
