// Numbers out of a payload that may come from anyone: varints, bits and exceptions (docs/format.md, sections 2 to 4).
#pragma once

#include <cstdint>
#include <string>

#include "payload/errors.h"
#include "rans/rans.h"

namespace ckbd {

inline uint32_t read_varint(const char* field, const uint8_t* payload, const uint8_t*& next, const uint8_t* end) {
  const size_t offset = static_cast<size_t>(next - payload);
  uint64_t value = 0;  // five groups of 7 bits: at most 35
  for (int shift = 0; shift < 35; shift += 7) {
    if (next == end) throw StreamError(field, offset, "the payload ends inside a number");
    const uint8_t byte = *next++;
    value |= uint64_t{byte & 127u} << shift;
    if (byte >= 128) continue;
    if (byte == 0 && shift > 0) throw StreamError(field, offset, "a number is longer than it needs to be");
    if (value > UINT32_MAX) break;
    return static_cast<uint32_t>(value);
  }
  throw StreamError(field, offset, "a number is 2^32 or more");
}

// A symbol from outside, if the array has room for it: -largest - 1 .. largest.
inline int32_t fit(int64_t value, int32_t largest, const char* field, size_t offset) {
  if (value < -int64_t{largest} - 1 || value > largest) {
    throw StreamError(
        field, offset,
        "a symbol of " + std::to_string(value) + " is outside " + (largest == INT8_MAX ? "int8" : "int16"));
  }
  return static_cast<int32_t>(value);
}

// Numbers of given width from bytes, least significant bit first. Takes a byte only when its first bit is wanted.
class BitReader {
 public:
  BitReader(const char* field, const uint8_t* payload, const uint8_t*& next, const uint8_t* end)
      : field_(field), payload_(payload), next_(next), end_(end) {}
  // width <= 31: fewer than 8 bits wait, so 38 are held at most.
  uint32_t get(int width) {
    for (; count_ < width; count_ += 8) {
      if (next_ == end_) {
        throw StreamError(field_, static_cast<size_t>(next_ - payload_), "the payload ends inside a number");
      }
      held_ |= uint64_t{*next_++} << count_;
    }
    const uint64_t value = held_ & ((uint64_t{1} << width) - 1);
    held_ >>= width;
    count_ -= width;
    return static_cast<uint32_t>(value);
  }
  // One-bits before the next zero-bit; at most eight for each byte of the payload.
  uint64_t unary() {
    uint64_t ones = 0;
    while (get(1)) ++ones;
    return ones;
  }
  [[noreturn]] void refuse(const char* reason) const {
    throw StreamError(field_, static_cast<size_t>(next_ - payload_) - 1, reason);
  }
  // At the end of a part: what is left of its last byte.
  void finish() {
    if (held_ != 0) refuse("the padding is not zero");
  }

 private:
  const char* field_;
  const uint8_t* payload_;
  const uint8_t*& next_;
  const uint8_t* end_;
  uint64_t held_ = 0;
  int count_ = 0;
};

// One exception: how many elements of the skipped group come before it, and its r.
struct Exception {
  uint64_t gap;
  int64_t r;
};

// A payload has fewer than 2^32 bytes (its length is a varint), so unary() < 2^35; low_bits <= 24: gap < 2^60.
inline Exception read_exception(BitReader& bits, int low_bits) {
  const uint64_t high = bits.unary();
  const uint64_t gap = high << low_bits | bits.get(low_bits);
  const bool negative = bits.get(1);
  const uint64_t m = bits.unary();
  if (m > kMaxMagnitudeBits) bits.refuse("the size of an exception is 2^16 or more");
  const int64_t size = int64_t{1} << m | bits.get(static_cast<int>(m));
  return {gap, negative ? -size : size};
}

}  // namespace ckbd
