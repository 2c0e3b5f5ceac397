// plain.h, made fast as far as C++ alone can.
#include <algorithm>
#include <cstring>

#include "rans/crc32c.h"
#include "rans/isa.h"
#include "rans/members.h"

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

// ---- y: first which elements are members, then their symbols

constexpr size_t kChunk = 2048;  // elements whose members are listed at a time

// For each set of eight: the places of its members, in order.
struct Places {
  uint16_t of[256][8];
  uint8_t count[256];
};

constexpr Places make_places() {
  Places places{};
  for (unsigned set = 0; set < 256; ++set) {
    for (uint16_t j = 0; j < 8; ++j) {
      if (set >> j & 1) places.of[set][places.count[set]++] = j;
    }
  }
  return places;
}

constexpr Places kPlaces = make_places();

// The places of members in a chunk; writes up to eight more. A loop over single bits would end where no processor can
// guess, once in every block, and that costs more than the bits.
size_t list_members(const uint64_t* members, size_t blocks, uint16_t* places) {
  uint16_t* next = places;
  for (size_t b = 0; b < blocks; ++b) {
    if (members[b] == 0) continue;
    for (size_t j = 0; j < kBlock; j += 8) {
      const size_t set = members[b] >> j & 255;
      for (size_t i = 0; i < 8; ++i) next[i] = static_cast<uint16_t>(kPlaces.of[set][i] + b * kBlock + j);
      next += kPlaces.count[set];
    }
  }
  return static_cast<size_t>(next - places);
}

// Decodes symbols `first` to before `last` of a group, which are at `places`. With kEnoughWords there are as many
// words as symbols, so that their end need not be looked for. False if the stream has failed.
template <bool kEnoughWords, class R>
bool decode_listed(DecoderState& state, const TableView& tables, const uint8_t* k, R* r, const uint16_t* places,
                   size_t first, size_t last) {
  const YRow* const rows = tables.y_rows;
  const size_t lane_mask = state.lane_mask;
  Words words = state.words;
  for (size_t i = first; i < last; ++i) {
    const size_t j = *places++;
    uint32_t& lane = state.x[i & lane_mask];
    const uint32_t before = lane;
    uint32_t x = before;
    const int8_t symbol = decode_y_step(x, rows[row_of(k[j])]);
    r[j] = symbol;
    bool there = true;
    if constexpr (kEnoughWords) {
      refill(x, words.next);
    } else {
      there = refill(x, words);
    }
    lane = x;
    if (__builtin_expect(there & (symbol != kEscapeSymbol), 1)) continue;
    if (!there) return no_words(state);
    int32_t large;
    if (!escaped(state, tables, false, k[j], before, &large)) return false;
    r[j] = static_cast<R>(large);
  }
  state.words = words;
  return true;
}

template <class R>
void decode_y(DecoderState& state, const TableView& tables, const YGroup<R>& y, bool clear) {
  if (clear) std::fill_n(y.r, y.n, R{0});
  uint16_t places[kChunk + 8];
  size_t first = 0;
  for (size_t begin = 0; begin < y.n; begin += kChunk) {
    const uint8_t* const k = y.k + begin;
    R* const r = y.r + begin;
    const size_t blocks = blocks_of(std::min(kChunk, y.n - begin));
    const size_t count = list_members(y.members + begin / kBlock, blocks, places);
    // No symbol takes more than one word.
    const size_t words = static_cast<size_t>(state.words.end - state.words.next) / 2, sure = std::min(count, words);
    if (!decode_listed<true>(state, tables, k, r, places, first, first + sure)) return;
    if (!decode_listed<false>(state, tables, k, r, places + sure, first + sure, first + count)) return;
    first += count;
  }
}

template <class R>
void decode_two(DecoderState* const state[2], const TableView& tables, const YGroup<R> y[2], bool clear) {
  for (int i = 0; i < 2; ++i) decode_y(*state[i], tables, y[i], clear);
}

void encode_z(EncoderState& state, const TableView& tables, const int16_t* z, size_t n) {
  for (size_t i = n; i-- > 0;) {
    uint32_t& x = state.x[i & state.lane_mask];
    x = encode_z_symbol(state, tables, x, i % tables.channels, once(z + i));
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
      x = encode_y_symbol(state, tables, x, once(y.k + b * kBlock + j), once(y.r + b * kBlock + j));
    }
  }
}

// Eight elements at once, one byte each, all below 128: k + 127 - limit has bit 7 set if k > limit, and no carry goes
// on to the next. k of 128 and more give nonsense, but are refused for their size anyway.
constexpr uint64_t kOnes = 0x0101010101010101;

uint64_t above(uint64_t eight, uint8_t limit) { return (eight + kOnes * (127u - limit)) >> 7 & kOnes; }

// The lowest bits of eight bytes, collected; and the sum of eight bytes, below 256.
uint64_t collect(uint64_t bits) { return bits * 0x0102040810204080 >> 56; }
size_t sum(uint64_t bytes) { return bytes * kOnes >> 56; }

Count classify(const uint8_t* k, size_t n, uint8_t skip_max, uint64_t* narrow, uint64_t* wide) {
  Count total{};
  uint64_t used = 0;
  for (size_t begin = 0; begin < n; begin += kBlock) {
    const uint8_t* from = k + begin;
    uint8_t last[kBlock] = {};
    if (n - begin < kBlock) from = std::copy_n(from, n - begin, last) - (n - begin);
    uint64_t in_coded = 0, in_wide = 0, coded = 0, wides = 0;
    for (size_t j = 0; j < kBlock; j += 8) {
      uint64_t eight;
      std::memcpy(&eight, from + j, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
      eight = __builtin_bswap64(eight);
#endif
      used |= eight;
      const uint64_t here = above(eight, skip_max), here_wide = above(eight, kLastNarrow);
      in_coded |= collect(here) << j;
      in_wide |= collect(here_wide) << j;
      coded += here;
      wides += here_wide;
    }
    *narrow++ = in_coded & ~in_wide;
    *wide++ = in_wide;
    total.narrow += sum(coded) - sum(wides);
    total.wide += sum(wides);
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
