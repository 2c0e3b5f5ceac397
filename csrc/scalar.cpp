// The plain coder over interleaved lanes. Its output is by definition the stream.
#include <algorithm>
#include <cstring>

#include "crc32c.h"
#include "isa.h"
#include "members.h"

namespace ckbd::scalar {
namespace {

void decode_z(DecoderState& state, const TableView& tables, int16_t* z, size_t n) {
  Words words = state.words;
  for (size_t i = 0, c = 0; i < n; ++i) {
    uint32_t& x = state.x[i & state.lane_mask];
    const uint32_t before = x;
    const uint32_t size = decode_z_step(x, tables.z_slots + c * kSlots);
    int32_t symbol = tables.by_channel.low[c] + static_cast<int32_t>(size);
    if (!refill(x, words)) {
      no_words(state);
      return;
    }
    if (size == kEscapeSize && !escaped(state, tables, true, static_cast<uint32_t>(c), before, &symbol)) return;
    z[i] = static_cast<int16_t>(symbol);
    c = c + 1 < tables.channels ? c + 1 : 0;
  }
  state.words = words;
}

// The states are copied too: they are then known to be apart from what is written.
struct Lanes {
  explicit Lanes(const uint32_t* from) { std::copy_n(from, kMaxLanes, x); }
  uint32_t x[kMaxLanes];
};

template <class R>
void decode_y(DecoderState& state, const TableView& tables, const YGroup<R>& y, bool clear) {
  if (clear) std::fill_n(y.r, y.n, R{0});
  const Slot* const slots = tables.y_slots;
  const size_t lane_mask = state.lane_mask, blocks = blocks_of(y.n);
  Lanes lanes(state.x);
  Words words = state.words;
  size_t i = 0;
  for (size_t b = 0; b < blocks; ++b) {
    const uint8_t* const k = y.k + b * kBlock;
    R* const r = y.r + b * kBlock;
    uint64_t in = y.members[b];
    while (in != 0) {
      const size_t j = lowest_bit(in);
      in &= in - 1;
      uint32_t& x = lanes.x[i++ & lane_mask];
      const uint32_t before = x;
      const Decoded decoded = decode_y_step(x, slots + size_t{k[j]} * kYSlots);
      r[j] = static_cast<R>(symbol_of(decoded));
      const bool there = refill(x, words);
      if (__builtin_expect(there & (decoded.size != kEscapeSize), 1)) continue;
      if (!there) {
        no_words(state);
        return;
      }
      int32_t symbol;
      if (!escaped(state, tables, false, k[j], before, &symbol)) return;
      r[j] = static_cast<R>(symbol);
    }
  }
  std::copy_n(lanes.x, kMaxLanes, state.x);
  state.words = words;
}

template <class R>
void decode_two(DecoderState* const state[2], const TableView& tables, const YGroup<R> y[2], bool clear) {
  for (int i = 0; i < 2; ++i) decode_y(*state[i], tables, y[i], clear);
}

void encode_z(EncoderState& state, const TableView& tables, const int16_t* z, size_t n) {
  for (size_t i = n; i-- > 0;) {
    uint32_t& x = state.x[i & state.lane_mask];
    x = encode_z_symbol(state, tables, x, i % tables.channels, z[i]);
  }
}

template <class R>
void encode_y(EncoderState& state, const TableView& tables, const YGroup<const R>& y) {
  size_t i = y.count;
  for (size_t b = blocks_of(y.n); b-- > 0;) {
    uint64_t in = y.members[b];
    while (in != 0) {
      const size_t j = highest_bit(in);
      in ^= uint64_t{1} << j;
      uint32_t& x = state.x[--i & state.lane_mask];
      x = encode_y_symbol(state, tables, x, y.k[b * kBlock + j], y.r[b * kBlock + j]);
    }
  }
}

// Eight elements at once. Of numbers below 128, one byte each, k + 127 - limit has bit 7 set if k > limit, and no
// carry goes on to the next; the product collects the eight bits at its top. k of 128 and more give nonsense, but are
// refused for their size anyway.
constexpr uint64_t kOnes = 0x0101010101010101;

uint64_t above(uint64_t eight, uint8_t limit) {
  const uint64_t bits = (eight + kOnes * (127u - limit)) >> 7 & kOnes;
  return bits * 0x0102040810204080 >> 56;
}

Count classify(const uint8_t* k, size_t n, uint8_t skip_max, uint64_t* narrow, uint64_t* wide) {
  Count total{};
  uint64_t used = 0;
  for (size_t begin = 0; begin < n; begin += kBlock) {
    uint64_t in_coded = 0, in_wide = 0;
    for (size_t j = 0; j < std::min(kBlock, n - begin); j += 8) {
      uint64_t eight = 0;
      std::memcpy(&eight, k + begin + j, std::min<size_t>(8, n - begin - j));
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
      eight = __builtin_bswap64(eight);
#endif
      used |= eight;
      in_coded |= above(eight, skip_max) << j;
      in_wide |= above(eight, kLastNarrow) << j;
    }
    *narrow++ = in_coded & ~in_wide;
    *wide++ = in_wide;
    total.wide += static_cast<size_t>(__builtin_popcountll(in_wide));
    total.narrow += static_cast<size_t>(__builtin_popcountll(in_coded & ~in_wide));
  }
  total.in_range = (used & kOnes * static_cast<uint8_t>(~(kScales - 1))) == 0;
  return total;
}

// What is not coded of the block that `at` is in, from there to n.
uint64_t skipped_from(const uint64_t* coded, size_t at, size_t n) {
  const size_t left = n - at / kBlock * kBlock;
  const uint64_t valid = left < kBlock ? (uint64_t{1} << left) - 1 : ~uint64_t{0};
  return ~coded[at / kBlock] & valid & ~uint64_t{0} << at % kBlock;
}

size_t find_skipped(const uint64_t* coded, size_t at, size_t n, uint64_t before) {
  for (; at < n; at = (at / kBlock + 1) * kBlock) {
    uint64_t in = skipped_from(coded, at, n);
    const uint64_t here = static_cast<uint64_t>(__builtin_popcountll(in));
    if (before < here) {
      for (; before > 0; --before) in &= in - 1;
      return at / kBlock * kBlock + lowest_bit(in);
    }
    before -= here;
  }
  return n;
}

template <class R>
size_t next_exception(const uint64_t* coded, const R* r, size_t at, size_t n, size_t& zeros) {
  for (; at < n; at = (at / kBlock + 1) * kBlock) {
    for (uint64_t in = skipped_from(coded, at, n); in != 0; in &= in - 1) {
      const size_t here = at / kBlock * kBlock + lowest_bit(in);
      if (r[here] != 0) return here;
      ++zeros;
    }
  }
  return n;
}

}  // namespace

extern const Coder coder = {
    "scalar",
    decode_z,
    encode_z,
    classify,
    find_skipped,
    crc32c,
    {decode_y<int8_t>, decode_two<int8_t>, encode_y<int8_t>, next_exception<int8_t>},
    {decode_y<int16_t>, decode_two<int16_t>, encode_y<int16_t>, next_exception<int16_t>},
};

}  // namespace ckbd::scalar
