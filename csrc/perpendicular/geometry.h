// The shape of one convolution t = conv(x, weight), as in torch.nn.Conv2d without bias.
#pragma once
#include <cstdint>

namespace led::perpendicular {

struct Geometry {
  int64_t batch, groups;
  int64_t in_channels, height, width;           // x: (batch, in_channels, height, width)
  int64_t out_channels, out_height, out_width;  // t: (batch, out_channels, out_height, out_width)
  int64_t kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w;

  int64_t taps() const { return kernel_h * kernel_w; }
  int64_t cells() const { return out_height * out_width; }  // of t's grid
  int64_t pixels() const { return height * width; }
  int64_t group_in() const { return in_channels / groups; }
  int64_t group_out() const { return out_channels / groups; }
};

}  // namespace led::perpendicular
