// Which symbol a group of threads has, and its entries from the taps.
#pragma once
#include "circulant_logdet/eliminate.cuh"

#define LED_FUNCTION __host__ __device__ __forceinline__
#include "circulant_logdet/math.h"

namespace led::circulant_logdet {

struct Shape {
  int64_t batch;
  int channels;
  Taps taps;
  Grid grid;
  int64_t first, frequencies;  // of this launch

  __host__ __device__ int64_t entries() const { return int64_t(channels) * channels; }
};

// One entry of a symbol, from its taps and the frequency's phases.
template <typename Real>
__device__ __forceinline__ Complex<Real> evaluate_symbol(const Real* taps, const Complex<Real>* phases,
                                                         const Taps& shape) {
  const int64_t count = shape.count(), pairs = shape.sines();
  Complex<Real> sum = {count > 2 * pairs ? taps[pairs] : Real(0), 0};
  for (int64_t t = 0; t < pairs; ++t) {
    const Real tap = taps[t], mirror = taps[count - 1 - t];
    sum[0] += (tap + mirror) * phases[t][0];
    sum[1] += (tap - mirror) * phases[t][1];
  }
  return sum;
}

// Which matrix a group of threads has: its weights, its place in the workspaces, its frequency.
template <typename Real> struct Task {
  int64_t convolution;
  const Real* weight;
  const Complex<Real>* phases;
  int64_t matrix;  // in the launch
  int64_t log_index;
  int weight_of_frequency;

  __device__ __forceinline__ Task(int64_t index, const Real* weights, const Complex<Real>* all_phases, const Shape& s) {
    const int64_t b = index / s.frequencies, f = s.first + index % s.frequencies;
    convolution = b;
    weight = weights + b * s.entries() * s.taps.count();
    phases = all_phases + f * s.taps.cosines();
    matrix = index;
    log_index = b * s.grid.frequencies() + f;
    weight_of_frequency = s.grid.frequency(f).weight;
  }
};

}  // namespace led::circulant_logdet
