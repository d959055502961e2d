// Where the elements of a feature lie in memory, and how they are shared out.
#pragma once
#include <algorithm>
#include <cstdint>

namespace led::staircase {

// Samples of `features` times `inner` elements; a feature's elements lie side by side, or those of all features do.
struct Layout {
  int64_t samples, features, inner, steps;
  bool interleaved;

  int64_t sample_stride() const { return features * inner; }
  int64_t inner_stride() const { return interleaved ? features : 1; }
  int64_t feature_stride() const { return interleaved ? 1 : inner; }
};

// The positions [begin, begin + length) of all features, in `samples` samples from `sample` on: whole samples, or
// part number `part` of one.
struct Chunk {
  int64_t sample, samples, begin, length, part;
};

// Chunks depend on the layout alone, so that sums over them do not depend on the threads.
class Chunks {
 public:
  // A chunk has about so many elements, but enough of each feature to repay the sums it leaves.
  explicit Chunks(const Layout& l, int64_t elements, int64_t elements_of_feature) : layout_(l) {
    const int64_t size = std::max(elements, elements_of_feature * l.features), sample = l.sample_stride();
    const int64_t wanted = (sample + size - 1) / size;
    length_ = (l.inner + wanted - 1) / wanted;
    parts_ = (l.inner + length_ - 1) / length_;
    samples_ = parts_ > 1 ? 1 : std::max<int64_t>(1, size / sample);
  }
  int64_t count() const { return (layout_.samples + samples_ - 1) / samples_ * parts_; }
  int64_t parts() const { return parts_; }  // of a sample
  Chunk operator[](int64_t i) const {
    const int64_t sample = i / parts_ * samples_, part = i % parts_, begin = part * length_;
    return {sample, std::min(samples_, layout_.samples - sample), begin, std::min(length_, layout_.inner - begin),
            part};
  }

 private:
  Layout layout_;
  int64_t length_, parts_, samples_;
};

}  // namespace led::staircase
