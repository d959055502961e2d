// What a thread needs to eliminate the symbols at a SIMD vector of frequencies.
#pragma once
#include <memory>
#include <new>

#include "circulant_logdet/spectrum.h"

namespace led::circulant_logdet {

// What one thread works in: a view of size(channels, taps) Reals, aligned to 64 bytes.
template <class S> struct Workspace {
  static int64_t size(int64_t channels, Taps taps) {
    return LaneMatrix<S>::size(int(channels)) + (taps.count() + 1) * S::lanes + channels * taps.count();
  }

  LaneMatrix<S> matrix;
  Real<S>*basis, *weights, *folded_row;
  std::vector<Exchange<S>> exchanges;

  Workspace(int64_t channels, Taps taps, Real<S>* memory)
      : matrix(memory, int(channels)),
        basis(memory + LaneMatrix<S>::size(matrix.n)),
        weights(basis + taps.count() * S::lanes),
        folded_row(weights + S::lanes) {}
};

struct Free {
  void operator()(void* p) const { ::operator delete(p, std::align_val_t(64)); }
};
template <class T> std::unique_ptr<T[], Free> allocate(int64_t size) {
  return std::unique_ptr<T[], Free>(static_cast<T*>(::operator new(size * sizeof(T), std::align_val_t(64))));
}

// The symbols at frequencies from `first` on, from taps that are folded already, or from the weight's.
template <class S>
LED_INLINE void evaluate_group(const Spectrum& s, int64_t first, const Real<S>* taps, bool folded,
                               const Workspace<S>& w) {
  evaluate_basis<S>(s, first, w.basis, w.weights);
  const int n = w.matrix.n;
  for (int i = 0; i < n; ++i, taps += n * s.taps.count()) {
    if (!folded) fold_taps<S>(taps, n, s.taps, w.folded_row);
    evaluate_row(folded ? taps : w.folded_row, w.basis, s.taps, w.matrix, i);
  }
}

}  // namespace led::circulant_logdet
