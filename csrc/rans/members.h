// Which elements of a phase are coded, as bits.
#pragma once

#include <memory>
#include <vector>

#include "rans/rans.h"

namespace ckbd {

// Memory that a thread keeps from one call to the next: fresh pages cost more than the coding.
template <class T>
class Scratch {
 public:
  T* get(size_t size) {
    if (size > size_) {
      data_.reset(new T[size]);
      size_ = size;
    }
    return data_.get();
  }
  // Gives back what is more than a common picture needs.
  void trim() {
    if (size_ * sizeof(T) <= kKept) return;
    data_.reset();
    size_ = 0;
  }

 private:
  static constexpr size_t kKept = size_t{4} << 20;
  std::unique_ptr<T[]> data_;
  size_t size_ = 0;
};

// The groups of a phase of n elements. The memory is the scratch's, until it is asked again.
struct Members {
  uint64_t* narrow = nullptr;
  uint64_t* wide = nullptr;
  uint64_t* coded = nullptr;  // either
  size_t blocks = 0;
  Count count{};
};

inline Members classify(const Coder& coder, const uint8_t* k, size_t n, int skip_max, Scratch<uint64_t>& scratch) {
  Members members;
  members.blocks = blocks_of(n);
  members.narrow = scratch.get(3 * members.blocks);
  members.wide = members.narrow + members.blocks;
  members.coded = members.wide + members.blocks;
  members.count = coder.classify(k, n, static_cast<uint8_t>(skip_max), members.narrow, members.wide);
  for (size_t b = 0; b < members.blocks; ++b) members.coded[b] = members.narrow[b] | members.wide[b];
  return members;
}

// Of a number that is not 0.
inline size_t lowest_bit(uint64_t bits) { return static_cast<size_t>(__builtin_ctzll(bits)); }
inline size_t highest_bit(uint64_t bits) { return 63 - static_cast<size_t>(__builtin_clzll(bits)); }

}  // namespace ckbd
