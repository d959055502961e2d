// The mixture's log density on the CPU: tiles of samples side by side, past which the components go a few at a time.
// What is computed for a sample, or for the gradient of a component, depends on neither threads nor neighbours.
#include <algorithm>
#include <limits>
#include <vector>

#include "common/dispatch.h"
#include "mixture/math.h"
#include "mixture/op.h"

namespace led::mixture {
namespace {

constexpr int kTile = 256;              // samples at most, and ...
constexpr int64_t kTileNumbers = 8192;  // ... coordinates, so that they stay in the first-level cache
constexpr int kRegister = 16;           // loops run over multiples of it, so that no scalar remainder is left
constexpr int kGroup = 4;               // components that a tile meets at once

constexpr int64_t divide_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit; }

int64_t tile_of(int64_t dimension) {
  const int64_t fitting = kTileNumbers / std::max<int64_t>(1, dimension) / kRegister * kRegister;
  return std::clamp<int64_t>(fitting, 4 * kRegister, kTile);
}

// All components, [component][coordinate]. The last group is filled up by copies of the last one that have no weight.
// Weights are relative to the largest, so that near a component they have no digits to lose.
template <class Real> struct Components {
  int64_t count, dimension, groups, tile;
  std::vector<Real> means, rates, weights;  // μ, ρ, a
  double largest;

  explicit Components(const Problem& p)
      : count(p.components()), dimension(p.dimension()), groups(divide_up(count, kGroup)), tile(tile_of(dimension)) {}

  LED_INLINE void read(const Real* means_, const Real* log_scales, const Real* log_weights) {
    const int64_t size = count * dimension;
    means.resize(groups * kGroup * dimension);
    rates.resize(means.size());
    weights.assign(groups * kGroup, -std::numeric_limits<Real>::infinity());
    std::copy_n(means_, size, means.data());
    Real* const rate = rates.data();
    LED_SIMD
    for (int64_t i = 0; i < size; ++i) {
      const double log2 = double(log_scales[i]) * kLog2E, e = exp2_negative_abs(log2);
      rate[i] = Real(log2 < 0 ? kRate / e : kRate * e);
    }
    std::vector<double> logs(count);
    largest = std::numeric_limits<Real>::lowest();
    for (int64_t k = 0; k < count; ++k) {
      double log = log_weights[k] - kHalfLog2Pi * dimension;
      for (int64_t d = 0; d < dimension; ++d) log -= log_scales[k * dimension + d];
      logs[k] = log;
      largest = maximum(log, largest);
    }
    for (int64_t k = 0; k < count; ++k) weights[k] = Real((logs[k] - largest) * kLog2E);
    for (int64_t i = size; i < int64_t(means.size()); ++i)
      means[i] = means[i - dimension], rates[i] = rates[i - dimension];
  }
};

// A number for every component of a group and every sample of a tile.
template <class Real> using Grid = Real[kGroup][kTile];

// What a group's components have at a coordinate.
template <class Real> struct Coordinate {
  Real mean[kGroup], rate[kGroup];

  LED_INLINE Coordinate(const Components<Real>& c, int64_t group, int64_t d) {
#pragma GCC unroll 4
    for (int j = 0; j < kGroup; ++j) {
      const int64_t i = (group * kGroup + j) * c.dimension + d;
      mean[j] = c.means[i], rate[j] = c.rates[i];
    }
  }
};

// Σ u² for n samples, x being [coordinate][tile].
template <class Real>
LED_INLINE void square_distances(const Real* x, int n, const Components<Real>& c, int64_t group, Grid<Real>& squares) {
  for (auto& row : squares) std::fill_n(row, n, Real(0));
  int64_t d = 0;
  for (; d + 2 <= c.dimension; d += 2, x += 2 * c.tile) {
    const Coordinate<Real> first(c, group, d), second(c, group, d + 1);
    const Real* const y = x + c.tile;
    LED_SIMD
    for (int i = 0; i < n; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < kGroup; ++j) {
        const Real u = (x[i] - first.mean[j]) * first.rate[j], v = (y[i] - second.mean[j]) * second.rate[j];
        squares[j][i] += u * u + v * v;
      }
    }
  }
  if (d == c.dimension) return;
  const Coordinate<Real> last(c, group, d);
  LED_SIMD
  for (int i = 0; i < n; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < kGroup; ++j) {
      const Real u = (x[i] - last.mean[j]) * last.rate[j];
      squares[j][i] += u * u;
    }
  }
}

// Σ_k 2^(l_k - top) of the components until now, top being their largest l, and by how much the last group scaled it.
template <class Real> struct Sums {
  Real top[kTile], sum[kTile], scale[kTile];

  LED_INLINE Sums() {
    std::fill_n(top, kTile, std::numeric_limits<Real>::lowest());  // finite, so that -inf less it is no NaN
    std::fill_n(sum, kTile, Real(0));
  }

  // Turns a group's Σ u² into 2^(l_k - top).
  LED_INLINE void add(Grid<Real>& grid, int n, const Real* weights) {
    Real weight[kGroup];
    std::copy_n(weights, kGroup, weight);
    LED_SIMD
    for (int i = 0; i < n; ++i) {
      Real largest = top[i];
#pragma GCC unroll 4
      for (int j = 0; j < kGroup; ++j) {
        grid[j][i] = weight[j] - grid[j][i];
        largest = maximum(grid[j][i], largest);
      }
      scale[i] = exp2_or_zero(top[i] - largest);
      Real total = sum[i] * scale[i];
#pragma GCC unroll 4
      for (int j = 0; j < kGroup; ++j) {
        grid[j][i] = exp2_or_zero(grid[j][i] - largest);
        total += grid[j][i];
      }
      top[i] = largest, sum[i] = total;
    }
  }
};

// Adds Σ 2^(l_k - top) (μ - x) ρ² of a group to n samples' pulls, [coordinate][tile].
template <class Real>
LED_INLINE void add_pulls(const Real* x, Real* pulls, int n, const Components<Real>& c, int64_t group,
                          const Grid<Real>& powers, const Real* scale) {
  for (int64_t d = 0; d < c.dimension; ++d, x += c.tile, pulls += c.tile) {
    const Coordinate<Real> at(c, group, d);
    LED_SIMD
    for (int i = 0; i < n; ++i) {
      Real pull = pulls[i] * scale[i];
#pragma GCC unroll 4
      for (int j = 0; j < kGroup; ++j)  // no square of the rate, which may overflow
        pull += powers[j][i] * at.rate[j] * ((at.mean[j] - x[i]) * at.rate[j]);
      pulls[i] = pull;
    }
  }
}

// Samples [first, first + count) as [coordinate][tile], filled up to whole registers by the last one. Returns how many.
template <class T>
LED_INLINE int read_tile(const T* x, int64_t first, int count, const Components<RealOf<T>>& c, RealOf<T>* to) {
  const int n = (count + kRegister - 1) / kRegister * kRegister;
  for (int i = 0; i < n; ++i) {
    const T* const sample = x + (first + std::min(i, count - 1)) * c.dimension;
    for (int64_t d = 0; d < c.dimension; ++d) to[d * c.tile + i] = load(sample[d]);
  }
  return n;
}

// Where the results of all samples go. What is not wanted is null.
template <class Real> struct Results {
  Real *log_prob, *score, *tops, *shares;  // of a sample: its largest l, and 1 / Σ 2^(l - that)
};

// Tile after tile of samples.
template <class T>
LED_INLINE void forward_samples(const T* x, const Results<RealOf<T>>& to, const Components<RealOf<T>>& c, int64_t begin,
                                int64_t end) {
  using Real = RealOf<T>;
  std::vector<Real> tile(c.dimension * c.tile), pulls(to.score ? tile.size() : 0);
  for (int64_t first = begin; first < end; first += c.tile) {
    const int count = int(std::min(c.tile, end - first)), n = read_tile(x, first, count, c, tile.data());
    std::fill(pulls.begin(), pulls.end(), Real(0));
    Sums<Real> sums;
    Grid<Real> grid;
    for (int64_t group = 0; group < c.groups; ++group) {
      square_distances(tile.data(), n, c, group, grid);
      sums.add(grid, n, &c.weights[group * kGroup]);
      if (to.score) add_pulls(tile.data(), pulls.data(), n, c, group, grid, sums.scale);
    }
    Real log_prob[kTile], share[kTile];
    LED_SIMD
    for (int i = 0; i < n; ++i) {
      const Real sum = sums.sum[i];
      log_prob[i] = Real(c.largest) + (sums.top[i] * Real(kLog2) + log_of(sum));
      share[i] = sum == 0 ? Real(0) : 1 / sum;  // where there is no density, no component has a share
    }
    std::copy_n(log_prob, count, to.log_prob + first);
    if (!to.score) continue;
    std::copy_n(sums.top, count, to.tops + first);
    std::copy_n(share, count, to.shares + first);
    for (int i = 0; i < count; ++i)
      for (int64_t d = 0; d < c.dimension; ++d)
        to.score[(first + i) * c.dimension + d] =
            share[i] == 0 ? Real(0) : Real(2 * kLog2) * share[i] * pulls[d * c.tile + i];
  }
}

// All samples as tiles, with their largest l, and the share times the cotangent, 0 where a tile is filled up.
template <class Real> struct Batch {
  std::vector<int> lengths;
  std::vector<Real> x, tops, shares;

  template <class T>
  LED_INLINE void read(const T* samples, const Real* grad, const Real* kept, int64_t count, const Components<Real>& c) {
    lengths.resize(divide_up(count, c.tile));
    x.resize(lengths.size() * c.tile * c.dimension);
    tops.assign(lengths.size() * c.tile, Real(0));
    shares.assign(tops.size(), Real(0));
    for (int64_t t = 0, first = 0; first < count; ++t, first += c.tile)
      lengths[t] = read_tile(samples, first, int(std::min(c.tile, count - first)), c, &x[first * c.dimension]);
    std::copy_n(kept, count, tops.data());
    LED_SIMD
    for (int64_t i = 0; i < count; ++i) shares[i] = kept[count + i] * grad[i];
  }
};

// Gradients to the components of one group: Σ g r, Σ g r u and Σ g r u² over all samples, tile by tile.
template <class Real>
LED_INLINE void backward_group(const Batch<Real>& batch, const Components<Real>& c, int64_t group, Real* grad_means,
                               Real* grad_log_scales, Real* grad_log_weights) {
  const int64_t dimension = c.dimension;
  std::vector<double> totals(kGroup * (1 + 2 * dimension));
  Grid<Real> grid;
  for (int64_t t = 0; t < int64_t(batch.lengths.size()); ++t) {
    const int n = batch.lengths[t];
    const Real *const x = &batch.x[t * c.tile * dimension], *const top = &batch.tops[t * c.tile],
                      *const share = &batch.shares[t * c.tile];
    square_distances(x, n, c, group, grid);
    double* total = totals.data();
    for (int j = 0; j < kGroup; ++j) {
      Real* const r = grid[j];
      const Real weight = c.weights[group * kGroup + j];
      Real of_weight = 0;
      _Pragma("omp simd reduction(+:of_weight)") for (int i = 0; i < n; ++i) {
        r[i] = share[i] * exp2_or_zero(weight - r[i] - top[i]);
        of_weight += r[i];
      }
      *total++ += of_weight;
      for (int64_t d = 0; d < dimension; ++d) {
        const int64_t at = (group * kGroup + j) * dimension + d;
        const Real mean = c.means[at], rate = c.rates[at], *const column = x + d * c.tile;
        Real of_mean = 0, of_scale = 0;
        _Pragma("omp simd reduction(+:of_mean, of_scale)") for (int i = 0; i < n; ++i) {
          // Where u has overflowed there is no density.
          const Real u = r[i] == 0 ? Real(0) : (column[i] - mean) * rate, ru = r[i] * u;
          of_mean += ru;
          of_scale += ru * u;
        }
        *total++ += of_mean;
        *total++ += of_scale;
      }
    }
  }
  const double* total = totals.data();
  for (int64_t k = group * kGroup; k < std::min(c.count, (group + 1) * kGroup); ++k) {
    const double of_weight = *total++;
    grad_log_weights[k] = Real(of_weight);
    for (int64_t i = k * dimension; i < (k + 1) * dimension; ++i) {
      grad_means[i] = Real(2 * kLog2 * c.rates[i] * *total++);
      grad_log_scales[i] = Real(2 * kLog2 * *total++ - of_weight);
    }
  }
}

// One plain function a dtype, since target_clones does not apply to templates.
#define LED_KERNELS(T)                                                                                          \
  LED_MULTIVERSION void forward(const T* x, const Results<RealOf<T>>& to, const Components<RealOf<T>>& c,       \
                                int64_t begin, int64_t end) {                                                   \
    forward_samples(x, to, c, begin, end);                                                                      \
  }                                                                                                             \
  LED_MULTIVERSION void read(Batch<RealOf<T>>& batch, const T* x, const RealOf<T>* grad, const RealOf<T>* kept, \
                             int64_t count, const Components<RealOf<T>>& c) {                                   \
    batch.read(x, grad, kept, count, c);                                                                        \
  }
LED_KERNELS(double)
LED_KERNELS(float)
LED_KERNELS(Half)
LED_KERNELS(BFloat16)
#undef LED_KERNELS

#define LED_KERNELS(T)                                                                                        \
  LED_MULTIVERSION void read(Components<T>& c, const T* means, const T* log_scales, const T* log_weights) {   \
    c.read(means, log_scales, log_weights);                                                                   \
  }                                                                                                           \
  LED_MULTIVERSION void backward(const Batch<T>& batch, const Components<T>& c, int64_t group, T* grad_means, \
                                 T* grad_log_scales, T* grad_log_weights) {                                   \
    backward_group(batch, c, group, grad_means, grad_log_scales, grad_log_weights);                           \
  }
LED_KERNELS(double)
LED_KERNELS(float)
#undef LED_KERNELS

template <class Real> Components<Real> components_of(const Problem& p) {
  const auto data = [](const Tensor& t) { return static_cast<const Real*>(t.const_data_ptr()); };
  Components<Real> c(p);
  read(c, data(p.means), data(p.log_scales), data(p.log_weights));
  return c;
}

// Units of work that are worth a thread, of so many terms each.
int64_t grain(int64_t terms) { return std::max<int64_t>(1, (int64_t(1) << 17) / std::max<int64_t>(1, terms)); }

std::tuple<Tensor, Tensor, Tensor> forward_cpu(const Tensor& x, const Tensor& means, const Tensor& log_scales,
                                               const Tensor& log_weights, bool keep) {
  return forward_op(x, means, log_scales, log_weights, keep, [&](const Problem& p, Tensor& log_prob, const Kept& kept) {
    dispatch("mixture_log_prob", x.scalar_type(), [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      using Real = RealOf<T>;
      const auto c = components_of<Real>(p);
      const auto* from = static_cast<const T*>(p.x.const_data_ptr());
      auto* const tops = static_cast<Real*>(kept.shares);
      const Results<Real> to{static_cast<Real*>(log_prob.mutable_data_ptr()), static_cast<Real*>(kept.score), tops,
                             tops ? tops + p.samples() : nullptr};
      torch::stable::parallel_for(0, divide_up(p.samples(), c.tile), grain(c.tile * c.count * (c.dimension + 4)),
                                  [&](int64_t begin, int64_t end) {
                                    forward(from, to, c, begin * c.tile, std::min(end * c.tile, p.samples()));
                                  });
    });
  });
}

Gradients backward_cpu(const Tensor& grad_log_prob, const Tensor& x, const Tensor& means, const Tensor& log_scales,
                       const Tensor& log_weights, const Tensor& shares) {
  return backward_op(grad_log_prob, x, means, log_scales, log_weights, shares,
                     [&](const Problem& p, const Tensor& grad, const Tensor& shares, Gradients& gradients) {
                       dispatch("mixture_log_prob_backward", x.scalar_type(), [&](auto* type) {
                         using T = std::remove_pointer_t<decltype(type)>;
                         using Real = RealOf<T>;
                         const auto c = components_of<Real>(p);
                         Batch<Real> batch;
                         read(batch, static_cast<const T*>(p.x.const_data_ptr()),
                              static_cast<const Real*>(grad.const_data_ptr()),
                              static_cast<const Real*>(shares.const_data_ptr()), p.samples(), c);
                         const auto data = [](Tensor& t) { return static_cast<Real*>(t.mutable_data_ptr()); };
                         auto& [of_means, of_scales, of_weights] = gradients;
                         Real *const to_means = data(of_means), *const to_scales = data(of_scales),
                                     *const to_weights = data(of_weights);
                         torch::stable::parallel_for(0, c.groups, grain(kGroup * p.samples() * (2 * c.dimension + 4)),
                                                     [&](int64_t begin, int64_t end) {
                                                       for (int64_t group = begin; group < end; ++group)
                                                         backward(batch, c, group, to_means, to_scales, to_weights);
                                                     });
                       });
                     });
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(led_fast, m) {
  m.def(
      "mixture_log_prob(Tensor x, Tensor means, Tensor log_scales, Tensor log_weights, bool keep) -> (Tensor, "
      "Tensor, Tensor)");
  m.def(
      "mixture_log_prob_backward(Tensor grad_log_prob, Tensor x, Tensor means, Tensor log_scales, Tensor log_weights, "
      "Tensor shares) -> (Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(led_fast, CPU, m) {
  m.impl("mixture_log_prob", TORCH_BOX(&forward_cpu));
  m.impl("mixture_log_prob_backward", TORCH_BOX(&backward_cpu));
}

}  // namespace led::mixture
