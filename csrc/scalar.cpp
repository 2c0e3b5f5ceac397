// The plain coder over interleaved lanes. Its output is by definition the stream.
#include <algorithm>

#include "rans.h"

namespace ckbd {
namespace {

constexpr size_t kBlock = 512;

// Positions of a block's members. Membership is as good as random, so instead of branching on it every
// position is written down, and overwritten by the next one unless it counts. where[found] is in bounds since
// found <= j < n.
size_t members(Group group, const uint8_t* k, size_t n, uint16_t* where) {
  size_t found = 0;
  for (size_t j = 0; j < n; ++j) {
    where[found] = static_cast<uint16_t>(j);
    found += contains(group, k[j]);
  }
  return found;
}

}  // namespace

namespace scalar {

void decode_z(DecoderState& state, const Table* tables, size_t channels, int16_t* z, size_t n) {
  Words words = state.words;
  for (size_t i = 0, c = 0; i < n; ++i) {
    uint32_t& x = state.x[i & state.lane_mask];
    z[i] = static_cast<int16_t>(decode_z_symbol(x, tables[c], words, state.escapes));
    c = c + 1 < channels ? c + 1 : 0;
  }
  state.words = words;
}

size_t decode_y(DecoderState& state, const Table* tables, Group group, const uint8_t* k, int16_t* r, size_t n,
                size_t count) {
  uint16_t where[kBlock];
  Words words = state.words;
  size_t end = 0;
  for (size_t begin = 0, i = 0; i < count; begin += kBlock) {
    const size_t found = members(group, k + begin, std::min(kBlock, n - begin), where);
    const size_t wanted = std::min(found, count - i);
    for (size_t j = 0; j < wanted; ++j, ++i) {
      const size_t at = begin + where[j];
      uint32_t& x = state.x[i & state.lane_mask];
      r[at] = static_cast<int16_t>(decode_y_symbol(x, tables[k[at]], words, state.escapes));
      end = at + 1;
    }
  }
  state.words = words;
  return end;
}

void encode_z(EncoderState& state, const Table* tables, size_t channels, const int16_t* z, size_t n) {
  for (size_t i = n; i-- > 0;) {
    uint32_t& x = state.x[i & state.lane_mask];
    x = encode_z_symbol(state, x, tables[i % channels], z[i]);
  }
}

void encode_y(EncoderState& state, const Table* tables, Group group, const uint8_t* k, const int16_t* r,
              size_t n, size_t count) {
  uint16_t where[kBlock];
  for (size_t end = n, i = count; i > 0;) {
    const size_t begin = end > kBlock ? end - kBlock : 0;
    for (size_t j = members(group, k + begin, end - begin, where); j-- > 0;) {
      const size_t at = begin + where[j];
      --i;
      uint32_t& x = state.x[i & state.lane_mask];
      x = encode_y_symbol(state, x, tables[k[at]], r[at]);
    }
    end = begin;
  }
}

}  // namespace scalar
}  // namespace ckbd
