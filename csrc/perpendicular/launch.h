// What the torch side and the kernels of the perpendicular norm agree on: launchers and workspace.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>
#include <numeric>

namespace led::perpendicular {

constexpr int kThreads = 256;
constexpr int kMaxChannels = 4;    // of x in a group, that led_fast_perpendicular_norm takes
constexpr int kMaxWeights = 4096;  // of one output channel, likewise
constexpr int64_t kMaxPixels = 0x7fffffff - 0x10000, kMaxCells = 0x1fffffff;  // of one channel: 32 bits count bytes

// A block measures so many elements of a sample, and leaves their moments (3 numbers) in the workspace.
constexpr int64_t kPiece = 8 * kThreads;
constexpr int64_t pieces_to(int64_t sample_size) { return (sample_size + kPiece - 1) / kPiece; }
// With u made on the fly, a thread makes the pixels of a strip: kStripBytes of one column, a period apart. They meet
// the same taps, and cells of t that lie in a row. A block measures the channels of one group at kStripThreads strips.
constexpr int kStripThreads = 128;
constexpr int kStripBytes = 32;
template <typename T> constexpr int kStrip = kStripBytes / int(sizeof(T));

struct Strips {
  int64_t period, count;  // of a group of a sample
  constexpr int64_t pieces() const { return (count + kStripThreads - 1) / kStripThreads; }
};

constexpr Strips strips_of(int64_t height, int64_t width, int64_t stride_h, int64_t dilation_h, int64_t element_size) {
  const int64_t lcm = std::lcm(stride_h, dilation_h), period = lcm < height ? lcm : height;
  const int64_t pixels = (height + period - 1) / period * element_size;
  return {period, (pixels + kStripBytes - 1) / kStripBytes * period * width};
}

}  // namespace led::perpendicular

// x and u: samples * size elements. workspace: samples * pieces_to(size) * 3 elements. norm, coefficient: samples.
extern "C" cudaError_t led_fast_perpendicular_norm_to(const void* x, const void* u, double* workspace, void* norm,
                                                      void* coefficient, int64_t samples, int64_t size, int dtype,
                                                      cudaStream_t stream);

// x and u (may be null): (samples, groups, channels, height, width). t: (samples, groups, outs, out_height, out_width).
// weight: (groups, outs, channels, kernel_h, kernel_w). workspace: samples * groups * strips_of(...).pieces() * 3.
extern "C" cudaError_t led_fast_perpendicular_norm(const void* x, const void* weight, const void* t, double* workspace,
                                                   void* norm, void* coefficient, void* u, int64_t samples,
                                                   int64_t groups, int channels, int outs, int height, int width,
                                                   int out_height, int out_width, int kernel_h, int kernel_w,
                                                   int stride_h, int stride_w, int padding_h, int padding_w,
                                                   int dilation_h, int dilation_w, int dtype, cudaStream_t stream);
