// The coder to read first: one symbol after the other, nothing for speed. What it does with bytes is right by
// definition: the others must write the same, read the same symbols and give the same errors. How lanes begin and end
// (the tail) is the caller's: docs/format.md, section 4, which has all this in prose.
//
// rANS writes symbols as one number x. A table gives a symbol f of 4096 slots, from `first` on: the likelier, the
// more. To put a symbol on, x becomes 4096 (x / f) + first + x % f (integers), whose low 12 bits are one of the
// symbol's slots. To take it off, look whose slot they are: x becomes f (x / 4096) + x % 4096 - first, which is what
// it was. A symbol makes x larger by log2(4096 / f) bits, as it should. What was put on last comes off first, so the
// encoder goes from the last symbol to the first, and the decoder forwards.
//
// x stays in [2^16, 2^32). Where a step would reach 2^32, the encoder first moves the low 16 bits out, as a word; the
// decoder takes a word in where x falls below 2^16. Exactly the same steps do both (proof: above spill() in rans.h).
//
// There are several such numbers, the lanes, so that fast coders need not wait for one: symbol number i of a group
// (counted from 0 in each; x goes on) is in lane i mod lanes. All share one list of words, in the decoder's order.
//
// Groups: z, with a table a channel; then for each phase (part of the picture) y's elements, each with the table of
// its k (its scale, which both sides know), in two: narrow tables (skip_max < k <= 22), then wide ones. Where k <=
// skip_max an element is nearly always 0 and in neither; exceptions are listed elsewhere (payload/lists.h). A
// symbol beyond its table is coded as an escape; how far beyond is listed too, in the decoder's order.
#pragma once

#include "rans/rans.h"

namespace ckbd::plain {

// A table has sizes m = 0, 1, ..., escape, each with f and its first slot. A symbol of z is low + m. Of y, m > 0 is a
// pair, the escape too: of 2 f slots +m has the even ones, -m the odd ones; first is even.
struct Table {
  const Code* codes;
  uint32_t escape;
  int32_t low;
  bool is_z;
  bool takes_turns(uint32_t m) const { return !is_z && m > 0; }
};
inline Table z_table(const TableView& t, size_t c) {
  return {t.z_codes + c * 256, t.by_channel.escape[c], t.by_channel.low[c], true};
}
inline Table y_table(const TableView& t, size_t k) { return {t.y_codes + k * kYCodes, t.y_escape[k], 0, false}; }

// Takes symbol `number` of its group off its lane. False if the stream has failed, which is kept in the state.
inline bool decode_one(DecoderState& state, const TableView& t, const Table& table, size_t row, size_t number,
                       int32_t* symbol) {
  uint32_t& x = state.x[number & state.lane_mask];
  const uint32_t slot = x % kSlots;
  uint32_t m = table.escape;
  while (first_slot(table.codes[m]) > slot) --m;  // the last that begins at or before the slot owns it
  const uint32_t at = slot - first_slot(table.codes[m]);
  x = frequency(table.codes[m]) * (x / kSlots) + (table.takes_turns(m) ? at / 2 : at);
  if (x < kLow) {
    Words& words = state.words;
    if (words.next == words.end) return no_words(state);
    x = x << 16 | uint32_t{words.next[1]} << 8 | words.next[0];
    words.next += 2;
  }
  if (m == table.escape) return escaped(state, t, table.is_z, static_cast<uint32_t>(row), slot, symbol);
  const int32_t size = static_cast<int32_t>(m);
  *symbol = table.takes_turns(m) && at % 2 == 1 ? -size : table.low + size;
  return true;
}

// The same backwards: puts a symbol on.
inline void encode_one(EncoderState& state, const Table& table, size_t number, int32_t symbol) {
  uint32_t& x = state.x[number & state.lane_mask];
  const bool negative = !table.is_z && symbol < 0;
  const int32_t size = negative ? -symbol : symbol - table.low, escape = static_cast<int32_t>(table.escape);
  const bool inside = 0 <= size && size < escape;
  const uint32_t m = inside ? static_cast<uint32_t>(size) : table.escape;
  // How far beyond its table it is. Of z also which side: even numbers are above, odd ones below.
  const int32_t beyond = !table.is_z ? size - escape : size < 0 ? 2 * (-1 - size) + 1 : 2 * (size - escape);
  if (!inside) push_escape(state, static_cast<uint32_t>(beyond));
  const uint32_t f = frequency(table.codes[m]);
  if (x >= f << 20) {  // 4096 (x / f) would not fit into 32 bits; f <= 4095
    *--state.words = static_cast<uint8_t>(x >> 8);
    *--state.words = static_cast<uint8_t>(x);
    x >>= 16;
  }
  const uint32_t at = x % f;
  x = x / f * kSlots + first_slot(table.codes[m]) + (table.takes_turns(m) ? 2 * at + negative : at);
}

// ---- whole groups: what rans.h asks of a coder

inline bool bit(const uint64_t* bits, size_t i) { return bits[i / kBlock] >> i % kBlock & 1; }

inline void decode_z(DecoderState& state, const TableView& tables, int16_t* z, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    const size_t c = i % tables.channels;
    int32_t symbol = 0;
    if (!decode_one(state, tables, z_table(tables, c), c, i, &symbol)) return;
    z[i] = static_cast<int16_t>(symbol);
  }
}

inline void encode_z(EncoderState& state, const TableView& tables, const int16_t* z, size_t n) {
  for (size_t i = n; i-- > 0;) encode_one(state, z_table(tables, i % tables.channels), i, once(z + i));
}

template <class R>
void decode_y(DecoderState& state, const TableView& tables, const YGroup<R>& y, bool clear) {
  size_t number = 0;
  for (size_t i = 0; i < y.n && clear; ++i) y.r[i] = 0;
  for (size_t i = 0; i < y.n; ++i) {
    if (!bit(y.members, i)) continue;
    const size_t k = row_of(once(y.k + i));
    int32_t symbol = 0;
    if (!decode_one(state, tables, y_table(tables, k), k, number++, &symbol)) return;
    y.r[i] = static_cast<R>(symbol);
  }
}

template <class R>
void encode_y(EncoderState& state, const TableView& tables, const YGroup<const R>& y) {
  size_t number = y.count;
  for (size_t i = y.n; i-- > 0;) {
    if (bit(y.members, i)) encode_one(state, y_table(tables, row_of(once(y.k + i))), --number, once(y.r + i));
  }
}

}  // namespace ckbd::plain
