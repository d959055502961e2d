// The log density of a mixture of diagonal normals, and its derivatives, in powers of two:
//
//   u = (x_d - μ_kd) ρ_kd,  ρ = sqrt(log2(e) / 2) / σ      l_k = a_k - Σ_d u²
//   a_k = log2 w_k - Σ_d log2 σ_kd - D/2 log2(2π)          log p = log(2) log2 Σ_k 2^l_k
//
// With the shares r_k = 2^(l_k - log2 p), (x - μ) / σ² = 2 log(2) ρ u and (x - μ)² / σ² = 2 log(2) u². For a cotangent
// g of log p:
//   to x: -g Σ_k r (x - μ) / σ²                 to log w: Σ g r
//   to μ: Σ g r (x - μ) / σ²                    to log σ: Σ g r ((x - μ)² / σ² - 1), sums over samples
// Differences are squared as they are: multiplied out they would cancel where a component is narrow beside its mean.
#pragma once

namespace led::mixture {

constexpr double kLog2 = 0.69314718055994530942, kLog2E = 1.44269504088896340736;
constexpr double kRate = 0.84932180028801904272;        // sqrt(log2(e) / 2)
constexpr double kHalfLog2Pi = 0.91893853320467274178;  // log(2π) / 2

}  // namespace led::mixture
