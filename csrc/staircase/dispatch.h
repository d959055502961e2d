// How the CPU kernels are called: chunk by chunk on several threads.
#pragma once
#include <numeric>
#include <type_traits>
#include <vector>

#include "common/dispatch.h"
#include "staircase/math.h"
#include "staircase/op.h"

namespace led::staircase {

// All features' parameters.
template <class Real> struct Staircases {
  const Real *centers, *heights, *steepness, *slope;
  int64_t steps;

  Staircases(const Parameters& p, int64_t steps_)
      : centers(static_cast<const Real*>(p.centers.const_data_ptr())),
        heights(static_cast<const Real*>(p.heights.const_data_ptr())),
        steepness(static_cast<const Real*>(p.steepness.const_data_ptr())),
        slope(static_cast<const Real*>(p.slope.const_data_ptr())),
        steps(steps_) {}
  LED_INLINE void read_steps(int64_t feature, Step<Real>* to) const {
    for (int64_t k = 0, i = feature * steps; k < steps; ++k, ++i)
      to[k] = Step<Real>(centers[i], heights[i], steepness[i]);
  }
};

// Calls f(chunk, sums, stride), which adds each sample's sum at sums[sample * stride]; log_abs_det gets their totals.
// A chunk has at least so many elements of each feature.
template <class Real, class F>
void map_chunks(const Layout& l, int64_t elements_of_feature, Real* log_abs_det, const F& f) {
  const Chunks chunks(l, 4096, elements_of_feature);
  const int64_t parts = chunks.parts();
  std::vector<double> sums(l.samples * parts);
  torch::stable::parallel_for(0, chunks.count(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Chunk c = chunks[i];
      f(c, sums.data() + c.part, parts);
    }
  });
  for (int64_t s = 0; s < l.samples; ++s)
    log_abs_det[s] = Real(std::accumulate(&sums[s * parts], &sums[s * parts] + parts, 0.0));
}

}  // namespace led::staircase
