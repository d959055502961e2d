// Elimination of one complex matrix per SIMD lane, all lanes together, with partial pivoting in each lane.
//
// The method is Gauss-Jordan in place, blocked. Eliminating the columns K turns them into P = -A_K inv(A_KK) and every
// other column J into A_J + P A_KJ. For the determinant only the rows and columns not yet eliminated are updated
// (an LU factorisation); for the inverse all are. Almost all the work is the matrix product.
#pragma once
#include <vector>

#include "circulant_logdet/lanes.h"

namespace led::circulant_logdet {

// Exchange of rows `row` and `with` in the lanes of `mask`.
template <class S> struct Exchange {
  unsigned char mask[sizeof(Mask<S>)];  // as bytes: std::vector does not align to SIMD vectors everywhere
  int row, with;

  LED_INLINE Exchange(Mask<S> lanes, int row, int with) : row(row), with(with) {
    std::memcpy(mask, &lanes, sizeof mask);
  }
  LED_INLINE Mask<S> lanes() const {
    Mask<S> m;
    std::memcpy(&m, mask, sizeof m);
    return m;
  }
};

// A view of n x n complex entries, each a SIMD vector of real and one of imaginary parts, and of n pivots.
template <class S> class LaneMatrix {
 public:
  static constexpr int lanes = S::lanes;
  static constexpr int entry_size = 2 * lanes;

  static int64_t size(int n) { return int64_t(n) * (row_stride(n) + entry_size + lanes); }  // in Reals
  LaneMatrix(Real<S>* memory, int n)  // size(n) Reals, aligned to 64 bytes
      : n(n), entries_(memory), pivots_(memory + n * row_stride(n)), magnitudes_(pivots_ + n * entry_size) {}

  LED_INLINE Real<S>* entry(int row, int column) const { return entries_ + row * row_stride(n) + column * entry_size; }
  LED_INLINE Real<S>* pivot(int k) const { return pivots_ + k * entry_size; }
  LED_INLINE Real<S>* magnitude(int row) const { return magnitudes_ + row * lanes; }
  LED_INLINE int64_t row_stride() const { return row_stride(n); }

  const int n;

 private:
  // An odd number of entries, so that the rows of a column fall on different cache sets.
  static LED_INLINE int64_t row_stride(int n) { return int64_t(n | 1) * entry_size; }
  Real<S>*entries_, *pivots_, *magnitudes_;
};

enum class Goal { determinant, inverse, accurate_inverse };  // the last takes the largest pivots, and 5 % more time

// Leaves the pivots, whose product is the determinant up to sign, and else than with Goal::determinant the inverse in
// place of the matrix. A lane with a zero pivot is singular: its other pivots and its inverse mean nothing, but are
// finite. `exchanges` is scratch.
template <class S> void eliminate(const LaneMatrix<S>& matrix, Goal goal, std::vector<Exchange<S>>& exchanges);

}  // namespace led::circulant_logdet
