// What all targets have in common: an input as numbers, arrays that end where their memory ends, and how they fail.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace ckbd::fuzz {

template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::string text;
  ((text += parts), ...);
  std::fprintf(stderr, "fuzz: %s\n", text.c_str());
  std::abort();
}

// splitmix64
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t x = state_ += 0x9E3779B97F4A7C15;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9;
    x = (x ^ x >> 27) * 0x94D049BB133111EB;
    return x ^ x >> 31;
  }
  size_t below(size_t n) { return static_cast<size_t>(next() % n); }

 private:
  uint64_t state_;
};

// n elements that end where their memory ends, so that ASan sees it if one more is touched. The `lead` elements
// before them, which nobody may change, move them off the alignment of an allocation.
template <class T>
class Exact {
 public:
  Exact(size_t n, size_t lead, T fill) : n_(n), lead_(lead), block_(new T[n + lead]) {
    std::fill_n(block_.get(), lead, T{99});
    std::fill_n(data(), n, fill);
  }
  Exact(const std::vector<T>& from, size_t lead) : Exact(from.size(), lead, 0) {
    std::copy(from.begin(), from.end(), data());
  }
  T* data() const { return block_.get() + lead_; }
  size_t size() const { return n_; }
  T& operator[](size_t i) const { return data()[i]; }
  void check_lead() const {
    for (size_t i = 0; i < lead_; ++i) {
      if (block_[i] != 99) fail("an array is written before its beginning");
    }
  }
  bool operator==(const Exact& other) const {
    return n_ == other.n_ && std::equal(data(), data() + n_, other.data());
  }

 private:
  size_t n_, lead_;
  std::unique_ptr<T[]> block_;
};

class Input {
 public:
  Input(const uint8_t* data, size_t size) : next_(data), end_(data + size) {}
  uint32_t number(int bytes) {
    uint32_t value = 0;
    for (int i = 0; i < bytes && next_ < end_; ++i) value |= uint32_t{*next_++} << 8 * i;
    return value;
  }
  size_t left() const { return static_cast<size_t>(end_ - next_); }
  std::vector<uint8_t> rest() { return {std::exchange(next_, end_), end_}; }

 private:
  const uint8_t* next_;
  const uint8_t* const end_;
};

// Bytes over and over, each time a little different: what kinds of symbols they make stays. Any, if there are
// none.
class Bytes {
 public:
  Bytes(std::vector<uint8_t> bytes, uint64_t seed) : bytes_(std::move(bytes)), random_(seed) {}
  uint8_t next() {
    if (bytes_.empty()) return static_cast<uint8_t>(random_.next());
    const uint8_t byte = bytes_[at_] ^ change_;
    if (++at_ == bytes_.size()) {
      at_ = 0;
      change_ = static_cast<uint8_t>(random_.next() % 32);
    }
    return byte;
  }
  int word() {
    const int low = next();
    return static_cast<int16_t>(low | next() << 8);
  }

 private:
  const std::vector<uint8_t> bytes_;
  size_t at_ = 0;
  uint8_t change_ = 0;
  Random random_;
};

}  // namespace ckbd::fuzz
