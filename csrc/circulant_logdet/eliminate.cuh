// Elimination of a complex matrix in the shared memory of a block, with partial pivoting: Gauss-Jordan by panels of
// columns. The first warp factors a panel in its registers; the others have meanwhile updated all other columns by the
// panel before, in tiles of their registers. Rows stay where they are: a list says which was the pivot of which step.
#pragma once
#include <type_traits>

#include "common/gpu.h"
#include "common/reduce.cuh"

namespace led::circulant_logdet {

constexpr int kPanel = 8;  // columns of a panel
constexpr int kTile = 4;   // rows, and columns, of a thread's tile of the update

template <typename Real> using Complex = Pack<Real, 2>;

template <typename Real> __device__ __forceinline__ Complex<Real> multiply(Complex<Real> a, Complex<Real> b) {
  return {a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]};
}

// |re| + |im|, and infinity for NaN, so that a NaN becomes a pivot and is seen.
template <typename Real> __device__ __forceinline__ Real magnitude(Complex<Real> z) {
  const Real size = fabs(z[0]) + fabs(z[1]);
  return size == size ? size : Real(INFINITY);
}

// A power of two that brings a number of this size to between 2^-52 and 4, where no square over- or underflows.
__device__ __forceinline__ float scale_of(float size) {
  const unsigned exponent = __float_as_uint(size) & 0x7f800000u;
  return __uint_as_float(0x7f000000u - min(exponent, 0x7e800000u));
}
__device__ __forceinline__ double scale_of(double size) {
  const unsigned exponent = unsigned(__double_as_longlong(size) >> 32) & 0x7ff00000u;
  return __longlong_as_double(static_cast<long long>(0x7fe00000u - min(exponent, 0x7fd00000u)) << 32);
}

// 1/z, and 0 for z = 0.
template <typename Real> __device__ __forceinline__ Complex<Real> reciprocal(Complex<Real> z) {
  const Real size = magnitude(z);
  if (size == 0) return {0, 0};
  const Real power = scale_of(size), x = z[0] * power, y = z[1] * power, scale = 1 / (x * x + y * y) * power;
  return {x * scale, -y * scale};
}

// The shared memory of a matrix.
template <typename Real> struct BlockMatrix {
  int n, stride;
  Complex<Real>*entries, *pivots, *pivot_rows;
  uint16_t* order;  // the row that held the pivot of step k

  static __host__ __device__ int padded(int n) { return (n + kPanel - 1) / kPanel * kPanel; }
  // An odd stride: the entries of a column lie in different banks.
  static __host__ __device__ size_t bytes(int n) {
    return (size_t(n) * (n | 1) + n + 2 * kPanel) * sizeof(Complex<Real>) + 3 * padded(n) * sizeof(uint16_t);
  }
  __device__ BlockMatrix(unsigned char* memory, int channels) : n(channels), stride(channels | 1) {
    entries = reinterpret_cast<Complex<Real>*>(memory);
    pivots = entries + n * stride;
    pivot_rows = pivots + n;
    order = reinterpret_cast<uint16_t*>(pivot_rows + 2 * kPanel);
  }
  // The rows that a panel updates.
  __device__ uint16_t* rows(int panel) { return order + (1 + (panel & 1)) * padded(n); }
  __device__ Complex<Real>& entry(int i, int j) { return entries[i * stride + j]; }
};

// Columns [begin, end).
struct Panel {
  int begin, end;

  __device__ int width() const { return end - begin; }
};

// A matrix of n rows has so many in each lane of the warp that factors its panels; 0: too large.
constexpr int slots_for(int n) { return n <= 32 ? 1 : n <= 64 ? 2 : n <= 128 ? 4 : n <= 192 ? 6 : 0; }
// Threads of a block that has such a matrix.
__host__ __device__ constexpr int block_threads(int slots) { return slots == 1 ? 64 : slots == 2 ? 128 : 256; }
// Blocks of a multiprocessor that have registers: two where its shared memory has two matrices of that size.
__host__ __device__ constexpr int min_blocks(int slots, size_t real_bytes) {
  return slots == 4 && real_bytes == 4 ? 2 : 1;
}

// The kernel for n rows, and its threads: kernel_of(std::integral_constant<int, slots>), of at least kLeast slots. Null
// where there is none: no shared memory has so many rows.
template <typename Real, int kLeast, typename KernelOf> auto block_kernel_for(int n, KernelOf kernel_of) {
  struct {
    decltype(kernel_of(std::integral_constant<int, 4>())) kernel = nullptr;
    int threads = 0;
  } found;
  const auto consider = [&](auto slots) {
    if (slots_for(n) > slots.value || (slots_for(n) < slots.value && slots.value > kLeast)) return;
    found.kernel = kernel_of(slots);
    found.threads = block_threads(slots.value);
  };
  if (slots_for(n) == 0) return found;
  if constexpr (kLeast == 1) consider(std::integral_constant<int, 1>());
  consider(std::integral_constant<int, 2>());
  consider(std::integral_constant<int, 4>());
  if constexpr (sizeof(Real) == 4) consider(std::integral_constant<int, 6>());
  return found;
}

template <typename Real>
__device__ __forceinline__ void add_product(Complex<Real>& sum, Complex<Real> a, Complex<Real> b) {
  sum[0] += a[0] * b[0];  // four multiply-adds; one expression for each part would be six operations
  sum[1] += a[0] * b[1];
  sum[0] -= a[1] * b[1];
  sum[1] += a[1] * b[0];
}

// The first lane with the largest size, in every lane of the warp; negative: this lane has none. The bits of numbers
// that are not negative are ordered as the numbers.
__device__ __forceinline__ int find_largest(float size) {
  const unsigned key = size < 0 ? 0 : 2 * __float_as_uint(size) + 1, most = warp_max(key);
  return __ffs(__ballot_sync(kFullMask, key == most)) - 1;
}
__device__ __forceinline__ int find_largest(double size) {
  const uint64_t bits = __double_as_longlong(size);
  const unsigned high = size < 0 ? 0 : 2 * unsigned(bits >> 32) + 1, most = warp_max(high);
  const unsigned low = high == most ? unsigned(bits) : 0, rest = warp_max(low);
  return __ffs(__ballot_sync(kFullMask, high == most && low == rest)) - 1;
}

// The first warp's part of a panel: a lane has rows `lane`, `lane + 32`, ... of those that take part, which are all
// where the inverse is wanted, else those without a pivot. Registers cannot be indexed, so the columns move up by one
// at each step: the column to eliminate is always the first, and its place in the inverse the last.
template <typename Real, bool kInverse, int kSlots> struct PanelRows {
  Complex<Real> entry[kSlots][kPanel];
  int row[kSlots];
  unsigned used = 0, recent = 0;  // bit r: slot r's row has been a pivot; in this panel

  // The entries of `panel`, updated by the panel before it, if any.
  __device__ __forceinline__ void load(BlockMatrix<Real>& m, Panel before, Panel panel, int count,
                                       const uint16_t* rows) {
    const int lane = threadIdx.x % 32;
    if (!kInverse) used = recent = 0;
#pragma unroll
    for (int r = 0; r < kSlots; ++r) {
      const int place = lane + 32 * r, present = min(place, count - 1);
      row[r] = kInverse ? present : rows[present];
      if (place >= count) used |= 1u << r;
#pragma unroll
      for (int j = 0; j < kPanel; ++j) {
        entry[r][j] = {0, 0};  // also of last panel's pivot rows, which become combinations of themselves
        if (j < panel.width() && !(recent >> r & 1)) entry[r][j] = m.entry(row[r], panel.begin + j);
      }
    }
    recent = 0;
#pragma unroll 1
    for (int k = before.begin; k < before.end; ++k) {
      Complex<Real> right[kPanel];
#pragma unroll
      for (int j = 0; j < kPanel; ++j)
        right[j] = j < panel.width() ? m.entry(m.order[k], panel.begin + j) : Complex<Real>{0, 0};
#pragma unroll
      for (int r = 0; r < kSlots; ++r) {
        if (32 * r >= count) continue;
        const Complex<Real> left = m.entry(row[r], k);
#pragma unroll
        for (int j = 0; j < kPanel; ++j) add_product(entry[r][j], left, right[j]);
      }
    }
  }

  // One step of Gauss-Jordan: the row with the largest entry in the first column eliminates that of all other rows.
  __device__ __forceinline__ void eliminate(BlockMatrix<Real>& m, int k, int count) {
    const int lane = threadIdx.x % 32;
    Real size = -1;
    int slot = 0;
#pragma unroll
    for (int r = 0; r < kSlots; ++r) {
      const Real candidate = used >> r & 1 ? Real(-1) : magnitude(entry[r][0]);
      if (candidate > size) size = candidate, slot = r;
    }
    const bool is_pivot = lane == find_largest(size);
    Complex<Real>* const pivot_row = m.pivot_rows + k % 2 * kPanel;
#pragma unroll
    for (int r = 0; r < kSlots; ++r) {
      if (!is_pivot || slot != r) continue;
#pragma unroll
      for (int j = 0; j < kPanel; ++j) {
        pivot_row[j] = entry[r][j];
        entry[r][j] = {Real(j == 0 ? -1 : 0), 0};  // so that the step leaves the pivot row, scaled
      }
      m.order[k] = uint16_t(row[r]);
      used |= 1u << r;
      recent |= 1u << r;
    }
    __syncwarp();  // the pivot row is there
    const Complex<Real> pivot = pivot_row[0], inverse = reciprocal(pivot);
    if (lane == 0) m.pivots[k] = pivot;
    Complex<Real> right[kPanel - 1];
#pragma unroll
    for (int j = 1; j < kPanel; ++j) right[j - 1] = pivot_row[j];
#pragma unroll
    for (int r = 0; r < kSlots; ++r) {
      if (32 * r >= count) continue;
      const Complex<Real> product = multiply(entry[r][0], inverse), factor = {-product[0], -product[1]};
#pragma unroll
      for (int j = 1; j < kPanel; ++j) {
        entry[r][j - 1] = entry[r][j];
        add_product(entry[r][j - 1], factor, right[j - 1]);
      }
      entry[r][kPanel - 1] = factor;
    }
  }

  // Back to shared memory, with the list of the rows that the panel updates.
  __device__ __forceinline__ void store(BlockMatrix<Real>& m, Panel panel, int count, uint16_t* rows) {
    const int lane = threadIdx.x % 32;
#pragma unroll 1
    for (int j = panel.width(); j < kPanel; ++j)  // the columns that a narrow panel lacks move up, too
#pragma unroll
      for (int r = 0; r < kSlots; ++r)
#pragma unroll
        for (int i = 1; i < kPanel; ++i) entry[r][i - 1] = entry[r][i];
    int listed = 0;
#pragma unroll
    for (int r = 0; r < kSlots; ++r) {
      if (32 * r >= count) continue;
      const bool present = lane + 32 * r < count, is_updated = present && !((kInverse ? recent : used) >> r & 1);
#pragma unroll
      for (int j = 0; j < kPanel; ++j)
        if ((kInverse ? present : is_updated) && j < panel.width()) m.entry(row[r], panel.begin + j) = entry[r][j];
      const unsigned updated = __ballot_sync(kFullMask, is_updated);
      if (is_updated) rows[listed + __popc(updated & ((1u << lane) - 1))] = uint16_t(row[r]);
      listed += __popc(updated);
    }
  }
};

// What a thread has of a panel's update: four rows, and four columns far from each other, so that lanes beside each
// other have columns beside each other.
template <typename Real> struct Tile {
  Complex<Real> entry[kTile][kTile];
  unsigned char* column[kTile];  // its first entry
  int row[kTile];                // how many bytes further: one addition makes an address

  __device__ __forceinline__ Complex<Real>& place(int j, int bytes) const {
    return *reinterpret_cast<Complex<Real>*>(column[j] + bytes);
  }
  __device__ __forceinline__ void load(bool zero) {
#pragma unroll
    for (int i = 0; i < kTile; ++i)
#pragma unroll
      for (int j = 0; j < kTile; ++j) entry[i][j] = zero ? Complex<Real>{0, 0} : place(j, row[i]);
  }
  __device__ __forceinline__ void store() const {
#pragma unroll
    for (int i = 0; i < kTile; ++i)
#pragma unroll
      for (int j = 0; j < kTile; ++j) place(j, row[i]) = entry[i][j];
  }
  // The panel's columns times its pivot rows.
  __device__ __forceinline__ void add(const BlockMatrix<Real>& m, Panel panel) {
    const unsigned char* factors = reinterpret_cast<const unsigned char*>(m.entries + panel.begin);
    const int row_bytes = m.stride * int(sizeof(Complex<Real>));
#pragma unroll 4
    for (int k = panel.begin; k < panel.end; ++k, factors += sizeof(Complex<Real>)) {
      Complex<Real> left[kTile], right[kTile];
      const int pivot_row = m.order[k] * row_bytes;
#pragma unroll
      for (int i = 0; i < kTile; ++i) left[i] = *reinterpret_cast<const Complex<Real>*>(factors + row[i]);
#pragma unroll
      for (int j = 0; j < kTile; ++j) right[j] = place(j, pivot_row);
#pragma unroll
      for (int i = 0; i < kTile; ++i)
#pragma unroll
        for (int j = 0; j < kTile; ++j) add_product(entry[i][j], left[i], right[j]);
    }
  }
};

// All columns but those of `panel` and `next`, updated by `panel`, which has `count` rows to update. The last tile of a
// thread may be of pivot rows, which all threads read: true where `tile` is one, to be stored after a barrier.
template <typename Real, bool kInverse>
__device__ __forceinline__ bool update_by_panel(BlockMatrix<Real>& m, Tile<Real>& tile, Panel panel, Panel next,
                                                const uint16_t* rows, int count, int worker, int workers) {
  const int left = kInverse ? panel.begin : 0, columns = left + m.n - next.end;
  const int across = (columns + kTile - 1) / kTile, down = (count + kTile - 1) / kTile;
  const int tiles = (down + (kInverse ? (panel.width() + kTile - 1) / kTile : 0)) * across;
  const int step_down = workers / max(across, 1), step_across = workers - step_down * across;
  int tile_row = worker / max(across, 1), tile_column = worker - tile_row * across;
  for (int t = worker; t < tiles; t += workers) {
    const int first_row = tile_row * kTile, first_column = tile_column;
    const bool pivots = kInverse && first_row >= down * kTile;
    const int first = pivots ? panel.begin + first_row - down * kTile : first_row;
    const Pack<uint16_t, kTile> listed =
        *reinterpret_cast<const Pack<uint16_t, kTile>*>((pivots ? m.order : rows) + first);
    const int present = (pivots ? panel.end : count) - first;
    // Past the last row or column the tile has its first once more: it writes the same number there again.
#pragma unroll
    for (int i = 0; i < kTile; ++i)
      tile.row[i] = (i < present ? listed[i] : listed[0]) * m.stride * int(sizeof(Complex<Real>));
#pragma unroll
    for (int j = 0; j < kTile; ++j) {
      const int c = first_column + (first_column + j * across < columns ? j * across : 0);
      tile.column[j] = reinterpret_cast<unsigned char*>(m.entries + (c < left ? c : c - left + next.end));
    }
    tile.load(pivots);
    tile.add(m, panel);
    if (pivots) return true;
    tile.store();
    tile_row += step_down;
    tile_column += step_across;
    if (tile_column >= across) tile_column -= across, ++tile_row;
  }
  return false;
}

// Leaves the pivots and their order, and with kInverse the inverse of A: entry (order[i], j) is that of row i and
// column order[j]. n is at most 32 kSlots, the block has block_threads(kSlots). Starts and ends with a barrier.
template <typename Real, bool kInverse, int kSlots>
__device__ __forceinline__ void eliminate_in_block(BlockMatrix<Real>& m) {
  constexpr int kThreads = block_threads(kSlots);
  static_assert(kPanel / kTile * (32 * kSlots / kTile) <= kThreads - 32, "a thread has one tile of pivot rows at most");
  const int n = m.n, thread = threadIdx.x, panels = m.padded(n) / kPanel;
  for (int i = thread; i < m.padded(n); i += kThreads) {
    m.order[i] = m.rows(0)[i] = 0;
    m.rows(-1)[i] = uint16_t(i);  // the first panel takes all rows
  }
  PanelRows<Real, kInverse, kSlots> first_warp;
  Panel panel = {0, 0};
  __syncthreads();  // the symbol and the lists are there
  for (int p = -1; p < (kInverse ? panels : panels - 1); ++p) {
    const Panel next = {panel.end, min(panel.end + kPanel, n)};
    const int idle = next.width() > 0 ? 32 : 0;  // threads that do not update
    Tile<Real> tile;
    bool pending = false;
    if (thread < idle) {
      const int count = kInverse ? n : n - panel.end;
      first_warp.load(m, panel, next, count, m.rows(p));
#pragma unroll 1
      for (int k = next.begin; k < next.end; ++k) first_warp.eliminate(m, k, count);
      first_warp.store(m, next, count, m.rows(p + 1));
      tile = {};  // undefined here, it would have registers in all of this branch
    } else if (p >= 0) {
      const int count = n - (kInverse ? panel.width() : panel.end);
      pending = update_by_panel<Real, kInverse>(m, tile, panel, next, m.rows(p), count, thread - idle, kThreads - idle);
    }
    if (kInverse) {
      __syncthreads();  // the pivot rows have been read
      if (pending) tile.store();
    }
    __syncthreads();  // the update and the next panel are there
    panel = next;
  }
}

}  // namespace led::circulant_logdet
