// The half spectrum of a real convolution kernel on an H x W torus, and where its taps sit on it.
//
//   symbol(f) = Σ_t w_t e^{i ψ_t(f)}
//
// The taps are centred: this only turns the symbol by a phase, which |det| does not see, and makes tap t and its
// mirror N-1-t opposite, ψ_{N-1-t} = -ψ_t. A symbol therefore costs N real multiplications an entry, not 4N:
//
//   symbol(f) = Σ_{t < N/2} (w_t + w_{N-1-t}) cos ψ_t + i (w_t - w_{N-1-t}) sin ψ_t  (+ the centre tap where N is odd)
#pragma once
#include <cstdint>

#ifndef LED_FUNCTION
#define LED_FUNCTION inline
#endif

namespace led::circulant_logdet {

struct Frequency {
  int64_t row, column;
  int weight;  // 2 where the mirrored frequency, whose symbol is the conjugate, is not listed
};

struct Grid {
  int64_t rows, columns;

  // Columns 0 and (where even) W/2 are their own mirrors: of them, rows 0 to H/2 suffice. They come first.
  LED_FUNCTION int64_t mirrored_columns() const { return columns % 2 == 0 ? 2 : 1; }
  LED_FUNCTION int64_t frequencies() const {
    return mirrored_columns() * (rows / 2 + 1) + (columns - mirrored_columns()) / 2 * rows;
  }
  // Columns 1 to (W-1)/2 follow in strips of four, row by row: neighbours in this order have similar symbols, hence
  // often the same pivot rows.
  LED_FUNCTION Frequency frequency(int64_t index) const {
    const int64_t half = rows / 2 + 1, mirrored = mirrored_columns() * half;
    if (index < mirrored) {
      const int64_t row = index % half;
      return {row, index / half * (columns / 2), row == 0 || 2 * row == rows ? 1 : 2};
    }
    const int64_t strip = (index - mirrored) / (4 * rows), offset = (index - mirrored) % (4 * rows);
    const int64_t left = (columns - 1) / 2 - 4 * strip, width = left < 4 ? left : 4;
    return {offset / width, 1 + 4 * strip + offset % width, 2};
  }
};

struct Taps {
  int64_t rows, columns;

  LED_FUNCTION int64_t count() const { return rows * columns; }
  LED_FUNCTION int64_t cosines() const { return (count() + 1) / 2; }  // of taps 0 to N/2, the centre included
  LED_FUNCTION int64_t sines() const { return count() / 2; }
};

// The angle of offset `tap` of `taps` at frequency `f` of `size` is π/size times this, in [0, 2 size).
LED_FUNCTION int64_t half_turns(int64_t f, int64_t tap, int64_t taps, int64_t size) {
  const int64_t n = f * (2 * tap - (taps - 1)) % (2 * size);
  return n < 0 ? n + 2 * size : n;
}

}  // namespace led::circulant_logdet
