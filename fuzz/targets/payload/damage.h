// Payloads that are damaged as a header says, or put together of an input's numbers.
#pragma once

#include "payload/decoding.h"

namespace ckbd::fuzz {

inline void damage(const Header& header, std::vector<uint8_t>& payload, Stream& stream) {
  for (const Header::Damage& one : header.damage) {
    const int value = one.how >> 3;
    const size_t at = one.where % (payload.size() + 1);
    const auto place = payload.begin() + static_cast<ptrdiff_t>(at);
    switch (one.how & 7) {
      case 0:
        break;
      case 1:
        if (at < payload.size()) *place ^= static_cast<uint8_t>(1 << value % 8);
        break;
      case 2:
        if (at < payload.size()) *place = static_cast<uint8_t>(value < 16 ? value : 255 - (31 - value));
        break;
      case 3:
        payload.insert(place, static_cast<size_t>(1 + value % 2), static_cast<uint8_t>(value));
        break;
      case 4:
        if (at < payload.size()) payload.erase(place);
        break;
      case 5:
        payload.erase(place, payload.end());
        break;
      case 6:
        payload.resize(payload.size() + at % 100, static_cast<uint8_t>(value));
        break;
      default:  // the header of the file
        if (value < 16) {
          stream.skip_max = value;
        } else if (value < 22) {
          stream.lanes_log2 = value - 16;
        } else if (value < 30) {
          stream.tail += static_cast<uint32_t>(value - 26);
        } else {
          stream.tail = static_cast<uint32_t>(one.where);
        }
    }
  }
}

// Numbers of given width to bytes, least significant bit first.
class Bits {
 public:
  explicit Bits(std::vector<uint8_t>& out) : out_(out) {}
  void put(uint32_t value, int width) {
    for (int i = 0; i < width; ++i) {
      if (count_++ % 8 == 0) out_.push_back(0);
      out_.back() |= static_cast<uint8_t>((value >> i & 1) << (count_ - 1) % 8);
    }
  }
  void put_unary(uint32_t ones) {
    for (; ones > 0; --ones) put(1, 1);
    put(0, 1);
  }

 private:
  std::vector<uint8_t>& out_;
  size_t count_ = 0;
};

inline void put_varint(std::vector<uint8_t>& out, uint32_t value) {
  for (; value >= 128; value >>= 7) out.push_back(static_cast<uint8_t>(value | 128));
  out.push_back(static_cast<uint8_t>(value));
}

inline uint32_t low_bits(uint32_t value, int bits) { return value & ((1u << bits) - 1); }

// A payload whose lists can be read unless a number in them says otherwise.
inline std::vector<uint8_t> put_together(const Header& header, Input& in) {
  std::vector<uint8_t> out;
  const uint32_t widths = in.number(1);
  Random states(in.number(2));
  Bits lanes(out);
  for (int lane = 0; lane < 1 << header.lanes_log2; ++lane) {
    const int e = static_cast<int>(lane == 0 ? widths & 15 : widths >> 4);
    lanes.put(static_cast<uint32_t>(e), 4);
    lanes.put(low_bits(static_cast<uint32_t>(states.next()), 16 + e), 16 + e);
  }
  for (int p = 0; p < header.phases; ++p) {
    const uint32_t count = in.number(1);
    put_varint(out, count < 250 ? count % 50 : in.number(4));
    if (count % 50 == 0) continue;
    const uint32_t b = in.number(1) % 32;
    out.push_back(static_cast<uint8_t>(b));
    Bits exceptions(out);
    for (uint32_t i = 0; i < count % 50 && in.left() > 0; ++i) {
      const uint32_t kind = in.number(1), m = kind >> 3 & 15;
      exceptions.put_unary(kind & 7);
      exceptions.put(low_bits(b > 8 ? in.number(3) : in.number(1), static_cast<int>(b)), static_cast<int>(b));
      exceptions.put(kind >> 7, 1);
      exceptions.put_unary(m);
      exceptions.put(low_bits(m > 0 ? in.number(2) : 0, static_cast<int>(m)), static_cast<int>(m));
    }
  }
  const uint32_t escapes = in.number(1);
  put_varint(out, escapes);
  for (uint32_t i = 0; i < escapes; ++i) {
    const uint32_t value = in.number(1);
    put_varint(out, value < 250 ? value : in.number(value < 253 ? 2 : 4));
  }
  const std::vector<uint8_t> words = in.rest();
  out.insert(out.end(), words.begin(), words.end());
  return out;
}

}  // namespace ckbd::fuzz
