// Moments of x against u on the CPU: blocks that fit the first-level cache are read twice, memory once.
#pragma once
#include "perpendicular/math.h"
#include "perpendicular/panel.h"

namespace led::perpendicular {

constexpr int64_t kBlock = 2048;  // elements: few enough that sums in the type's own precision stay accurate

// The last n elements of a block, padded with zeros to a vector.
template <class T> struct Tail {
  T x[kLanes<T>] = {}, u[kLanes<T>] = {};
  LED_INLINE Tail(const T* from_x, const T* from_u, int64_t n) {
    for (int64_t i = 0; i < n; ++i) x[i] = from_x[i], u[i] = from_u[i];
  }
};

template <class T> LED_INLINE double sum_lanes(const Vector<T>& v) {
  double sum = 0;
  for (int l = 0; l < kLanes<T>; ++l) sum += v[l];
  return sum;
}

template <class T> LED_INLINE Moments measure_block(const T* x, const T* u, int64_t n) {
  const int64_t whole = n - n % kLanes<T>;
  const Tail<T> tail(x + whole, u + whole, n - whole);
  Vector<T> ux = at(tail.u) * at(tail.x), uu = at(tail.u) * at(tail.u);
#pragma GCC unroll 4
  for (int64_t i = 0; i < whole; i += kLanes<T>) ux += at(u + i) * at(x + i), uu += at(u + i) * at(u + i);
  Moments m{sum_lanes<T>(ux), sum_lanes<T>(uu), 0};
  const T a = T(coefficient(m.ux, m.uu));
  Vector<T> left = at(tail.x) - at(tail.u) * a, residual = left * left;
#pragma GCC unroll 4
  for (int64_t i = 0; i < whole; i += kLanes<T>) left = at(x + i) - at(u + i) * a, residual += left * left;
  m.residual = sum_lanes<T>(residual);
  return m;
}

template <class T> LED_INLINE Moments measure(const T* x, const T* u, int64_t n) {
  Moments total{};
  for (int64_t i = 0; i < n; i += kBlock) total = merge(total, measure_block(x + i, u + i, std::min(kBlock, n - i)));
  return total;
}

}  // namespace led::perpendicular
