// The backward pass of both directions on the CPU. They differ in their seeds: the cotangents of y and of dy/dx.
#pragma once
#include <vector>

#include "staircase/dispatch.h"
#include "staircase/tile.h"

namespace led::staircase {

// What a chunk leaves for each feature: the sums of each step, then that for the slope.
constexpr int kStepSums = 3;
constexpr int64_t sums_of_feature(int64_t steps) { return kStepSums * steps + 1; }

// tanh and 1 - tanh^2 of one step, dy/dx and, where it is needed, -d²y/dx².
template <bool Curvature, class Real>
LED_INLINE void keep_step(const Real* x, Real* value, Real* slope, Real* derivative, Real* curvature, int n,
                          const Step<Real>& step_) {
  const Step<Real> step = step_;
  LED_SIMD
  for (int i = 0; i < n; ++i) {
    const auto t = terms_of(x[i], step);
    value[i] = t.value;
    slope[i] = t.slope;
    derivative[i] += step.weight * t.slope;
    if constexpr (Curvature) curvature[i] += step.weight * step.twice_steepness * t.value * t.slope;
  }
}

// Adds one step's part of the gradient to x, and its sums over the tile.
template <class Real>
LED_INLINE void add_gradients(const Real* x, const Real* value, const Real* slope, const Real* gy, const Real* h,
                              Real* gx, int n, const Step<Real>& step_, double* sums) {
  const Step<Real> step = step_;
  Real height = 0, steepness = 0, center = 0;
  _Pragma("omp simd reduction(+:height, steepness, center)") for (int i = 0; i < n; ++i) {
    const Real q = pull(value[i], slope[i], gy[i], h[i], step);
    const auto s = step_sums(x[i], value[i], slope[i], gy[i], h[i], q, step);
    gx[i] += step.weight * q;
    height += s.height;
    steepness += s.steepness;
    center += s.center;
  }
  sums[0] += height;
  sums[1] += steepness;
  sums[2] += center;
}

// One chunk. Seeds::apply(gy, h, derivative, curvature, n) turns cotangents of the results into those of the
// staircase's value and derivative; minus the former is the gradient to the input of an inverse.
template <class Seeds, class T>
LED_INLINE void backward_chunk(const T* x, const T* gy, const RealOf<T>* gl, T* gx, double* sums, const Layout& l,
                               const Chunk& c, const Staircases<RealOf<T>>& staircases) {
  using Real = RealOf<T>;
  std::vector<Step<Real>> steps(l.steps);
  std::vector<Real> kept(2 * kTile * l.steps);
  for (int64_t feature = 0; feature < l.features; ++feature, sums += sums_of_feature(l.steps)) {
    staircases.read_steps(feature, steps.data());
    const Real m = staircases.slope[feature];
    for_each_tile(l, c, feature, [&](const Tile& tile) __attribute__((always_inline)) {
      Real in[kTile], out[kTile], cotangent[kTile] = {}, h[kTile], derivative[kTile], curvature[kTile];
      const int n = tile.padded();
      read(x, tile, in);
      if (gy) read(gy, tile, cotangent);
      spread(gl, tile, h);
      for (int i = 0; i < n; ++i) derivative[i] = m, curvature[i] = 0;
      const auto value = [&](int64_t k) { return &kept[2 * k * kTile]; };
      const auto slope = [&](int64_t k) { return &kept[(2 * k + 1) * kTile]; };
      for (int64_t k = 0; k < l.steps; ++k)
        keep_step<Seeds::kInverse>(in, value(k), slope(k), derivative, curvature, n, steps[k]);
      Seeds::apply(cotangent, h, derivative, curvature, n);
      Real of_slope = 0;
      _Pragma("omp simd reduction(+:of_slope)") for (int i = 0; i < n; ++i) {
        const Real g = cotangent[i], xg = in[i] * g;
        of_slope += (g == 0 ? Real(0) : xg) + h[i];
        out[i] = m * g;
      }
      sums[kStepSums * l.steps] += of_slope;
      for (int64_t k = 0; k < l.steps; ++k)
        add_gradients(in, value(k), slope(k), cotangent, h, out, n, steps[k], sums + kStepSums * k);
      if constexpr (Seeds::kInverse)
        for (int i = 0; i < n; ++i) out[i] = -cotangent[i];
      write(out, tile, gx);
    });
  }
}

// Calls f(chunk, sums) for all chunks, and turns their sums into the gradients of the parameters.
template <class Real, class F>
void backward_chunks(const Layout& l, const Staircases<Real>& staircases, Gradients& gradients, const F& f) {
  const Chunks chunks(l, 4096, 256);
  const int64_t of_feature = sums_of_feature(l.steps), size = l.features * of_feature;
  std::vector<double> sums(chunks.count() * size);
  torch::stable::parallel_for(0, chunks.count(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) f(chunks[i], &sums[i * size]);
  });
  for (int64_t i = size; i < int64_t(sums.size()); ++i) sums[i % size] += sums[i];
  const auto data = [](Tensor& t) { return static_cast<Real*>(t.mutable_data_ptr()); };
  auto& [gx, centers, heights, steepness, slope] = gradients;
  for (int64_t feature = 0, i = 0; feature < l.features; ++feature) {
    const double* of = &sums[feature * of_feature];
    data(slope)[feature] = Real(of[kStepSums * l.steps]);
    for (int64_t k = 0; k < l.steps; ++k, ++i, of += kStepSums) {
      const double a = staircases.heights[i], b = staircases.steepness[i];
      data(heights)[i] = Real(of[0]);
      data(steepness)[i] = Real(a * of[1]);
      data(centers)[i] = Real(-a * b * of[2]);
    }
  }
}

}  // namespace led::staircase
