// rANS with interleaved lanes, and the tables it codes with: what all coders share. docs/format.md, section 4, is the
// definition, plain.h where to begin reading.
//
// What surprises first:
//
// - A rANS state is a stack of symbols. The decoder runs forwards, so the encoder runs backwards over the
//   same symbols, and fills the list of words from its last to its first.
// - All lanes share one list of words, and nothing says which word is whose. It follows: symbol i of a group
//   is in lane i mod L, and a lane takes the next word when its state falls below 2^16, so words come in the
//   order of the symbols that need them. Steps of different lanes do not wait for one another: that is what
//   lanes are for, and why a vector of lanes can take a step at once.
// - A y table is symmetric, so +m and -m share one interval of slots: the even ones say +m, the odd ones -m.
// - k and r are the caller's, and may be written to while they are read. So an index is cut to what its table has where
//   it is used (row_of()), after it has been checked: a wrong number then, no memory that is not ours.
// - This header is compiled for several instruction sets. Of an inline function with external linkage the
//   linker keeps one copy, which may then run where its set is missing. So everything here is static, and the
//   files of an instruction set use nothing of the standard library that is a template or inline.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/once.h"

namespace ckbd {

constexpr uint32_t kTableBits = 12;
constexpr uint32_t kSlots = 1u << kTableBits;
constexpr uint32_t kLow = 1u << 16;  // states live in [kLow, 2^32)
constexpr int kMaxLanesLog2 = 5;
constexpr int kMaxLanes = 1 << kMaxLanesLog2;
constexpr int kMaxSkip = 15;
constexpr int kMaxLowBits = 24;        // of the gap before an exception
constexpr int kMaxMagnitudeBits = 15;  // of its size, below the leading one
constexpr int kScales = 64;            // y tables
constexpr int kLastNarrow = 22;        // tables up to this one have at most ...
constexpr int kNarrowMax = 6;          // ... this many sizes besides 0 and the escape
constexpr int kMaxSize = 126;          // and all others at most this many
constexpr int kMaxZSize = 255;
constexpr size_t kStepBytes = 2 * kMaxLanes;  // the most that one step of all lanes reads or writes in words

// ---- tables, as plain arrays. tables.cpp makes them and proves what is said here.

// Decoding, a row of y: the symbol r of each slot, and of each r (as a byte) its f and the first slot of the interval
// that it shares with -r. Small, so that more of it stays near: 64 rows are 320 KiB, those of narrow tables 115.
struct YRow {
  int8_t symbol[kSlots];  // kEscapeSymbol for both escapes
  struct {
    uint16_t f, first;
  } of[256];
};
constexpr int8_t kEscapeSymbol = INT8_MIN;  // sizes end at kMaxSize

// Decoding, for gathers and for z: all of that in 32 bits, by the interval that a slot is in. In a y table intervals
// begin at even slots, so there is one entry for two.
//   bits 0-11   frequency f of a symbol in it, 1 .. 4095
//   bits 12-23  its first slot
//   bits 24-31  the size m; or in a z table its number; 255 for an escape
using Slot = uint32_t;
constexpr uint32_t kEscapeSize = 255;
constexpr size_t kYSlots = kSlots / 2;  // a row

// Encoding: what the size m means.
//   bits 0-11   f
//   bits 12-23  the first slot of its interval
//   bit  24     m is an escape
using Code = uint32_t;
constexpr Code kEscapeCode = 1u << 24;
constexpr int kYCodes = 128;  // a row; sizes beyond the table's escape have the escape's code

// The table of an index, whatever has become of it since it was checked.
static inline size_t row_of(uint32_t k) { return k & (kScales - 1); }

static inline uint32_t frequency(uint32_t slot_or_code) { return slot_or_code & (kSlots - 1); }
static inline uint32_t first_slot(uint32_t slot_or_code) { return slot_or_code >> kTableBits & (kSlots - 1); }

// Narrow tables once more, for a search in registers. `above[m - 1][k]` is 8 S + 7 - m, S being the first slot of
// size m by table k; the escape counts as size 7, and sizes that the table lacks are where the escape is. `few` is
// the same cut short: size 4, or the escape if it comes first, is the last, and sizes that the table lacks are there.
struct NarrowTables {
  uint16_t above[7][32];
  uint16_t few[4][32];
};

// z tables once more, for lanes that hold one channel after the other: rows that go on from the last channel to the
// first for kMaxLanes entries, so that any channel may be the one in lane 0.
struct ChannelRows {
  const uint16_t* channel;  // i mod channels
  const int16_t* low;
  const uint16_t* escape;
  const uint16_t* above;  // row m - 1: the first slot of interval m, 2^16 - 1 if there is none
  const uint16_t* rows;   // how many such rows there are for lanes that begin with a channel
  size_t stride;
};

struct TableView {
  const YRow* y_rows;   // kScales
  const Slot* y_slots;  // kScales rows of kYSlots
  const Code* y_codes;  // kScales rows of kYCodes
  const uint16_t* y_escape;
  const NarrowTables* narrow;
  const Slot* z_slots;  // channels rows of kSlots
  const Code* z_codes;  // channels rows of 256
  ChannelRows by_channel;
  size_t channels;
};

// Elements as bits, 64 to a block: bit j of block b is element 64 b + j.
constexpr size_t kBlock = 64;
static inline size_t blocks_of(size_t n) { return (n + kBlock - 1) / kBlock; }

// Words still to be read, [next, end). From any place up to `safe` a whole step of kStepBytes may be loaded; a
// decoder that has passed it calls turn_page(). `end_offset` is where in the payload the words end.
struct Words {
  const uint8_t* next;
  const uint8_t* end;
  const uint8_t* safe;
  const char* field;
  size_t end_offset;
};

struct Rare;  // what is needed seldom: payload/rare.h

struct DecoderState {
  uint32_t x[kMaxLanes];
  size_t lane_mask;  // L - 1
  Words words;
  Rare* rare;
};

struct EscapeList;

struct EncoderState {
  uint32_t x[kMaxLanes];
  size_t lane_mask;
  uint8_t* words;  // the last word put out; the next one goes below it, and kStepBytes may be written there
  EscapeList* escapes;
};

// A step of all lanes in which something rare happened: lane l decoded symbol `first + l` of its group, from slot
// `slot[l]` of table `table[l]`.
struct Step {
  size_t first;
  uint32_t escapes;       // lanes that did
  uint32_t taken;         // lanes that took a word
  const uint8_t* before;  // where the words began
  uint16_t slot[kMaxLanes];
  uint16_t table[kMaxLanes];
};

// The rare ways out (payload/rare.cpp, encode.cpp). None of them throws: those that may fail keep the StreamError
// in the state and return false, after which the decoder must return.

// Reads the escapes of a step, in order of lanes, and judges whether its words were there. If it returns true
// the words may have moved.
bool finish_step(DecoderState& state, const TableView& tables, bool is_z, const Step& step);
// One symbol's part of the same. x: the state before the step, or its low 12 bits.
bool escaped(DecoderState& state, const TableView& tables, bool is_z, uint32_t table, uint32_t x, int32_t* symbol);
bool no_words(DecoderState& state);
// The escapes that finish_step() has found since the last call, in order, after them one with the number SIZE_MAX; or
// null if there are none. Valid until the next step.
struct Escaped {
  size_t number;  // of the symbol in its group
  int32_t symbol;
};
const Escaped* take_escapes(DecoderState& state);
void push_escape(EncoderState& state, uint32_t value);

// ---- one lane, decoding

// If x < 2^16: x = 2^16 x + the next word. One word is enough, since no step leaves x below 16: it starts
// from x >= 2^16, and f (x >> 12) + bias >= x >> 12 >= 16. There must be a word, since it is loaded whether or not it
// is needed: which symbols need one is as good as random, so this must not become a branch; compilers make one of a
// conditional expression.
static inline void refill(uint32_t& x, const uint8_t*& next) {
  const uint32_t word = next[0] | uint32_t{next[1]} << 8;
  const uint32_t take = -uint32_t{x < kLow};  // all bits or none
  x = x << (take & 16) | (word & take);
  next += take & 2;
}

// The same where the words may be at their end. Returns false if one is needed then.
static inline bool refill(uint32_t& x, Words& words) {
  if (words.next == words.end) return x >= kLow;
  refill(x, words.next);
  return true;
}

// x = f (x >> 12) + bias, and the symbol. With S the interval's first slot and d = s - S:
//   one symbol (z; y with r = 0)   bias = d, as in any rANS;
//   two (y with r = +-m)           d runs over [0, 2 f), even for +m and odd for -m: bias d >> 1 in [0, f).
static inline int8_t decode_y_step(uint32_t& x, const YRow& row) {
  const uint32_t s = x & (kSlots - 1);
  const int8_t r = row.symbol[s];
  const auto of = row.of[static_cast<uint8_t>(r)];
  x = of.f * (x >> kTableBits) + ((s - of.first) >> (r != 0));
  return r;
}

static inline uint32_t decode_z_step(uint32_t& x, const Slot* row) {
  const uint32_t s = x & (kSlots - 1);
  const Slot slot = row[s];
  x = frequency(slot) * (x >> kTableBits) + s - first_slot(slot);
  return slot >> 24;
}

// ---- one lane, encoding: the steps above undone, in reverse order

// Puts out a word if the step for frequency f would else need more than 32 bits. The step leads from x to
// 2^12 (x / f) + slot, which is below 2^32 if x < 2^20 f (itself below 2^32, since f <= 4095); with a word
// gone x is below 2^16 <= 2^20 f. Either way x >= 16 f (2^16 >= 16 f, and 2^20 f >> 16 = 16 f), so the step
// leads to 2^16 or above. The decoder's step undoes it and finds x < 2^16 exactly if a word is gone, and
// takes that word.
static inline void spill(uint32_t& x, uint32_t f, uint8_t*& words) {
  const uint32_t give = x >= f << 20;
  // Written always, kept if needed; the caller has room for one word more than there are symbols.
  words[-2] = static_cast<uint8_t>(x);
  words[-1] = static_cast<uint8_t>(x >> 8);
  words -= 2 * give;
  x >>= 16 * give;
}

// x / f goes back above the table's bits, and x % f picks the slot: every `copies`-th from `first` on.
static inline uint32_t encode_step(uint32_t x, uint32_t f, uint32_t first, uint32_t copies) {
  const uint32_t quotient = x / f;
  return (quotient << kTableBits) + first + (x - quotient * f) * copies;
}

static inline uint32_t encode_y_symbol(EncoderState& state, const TableView& tables, uint32_t x, uint8_t k,
                                       int32_t r) {
  const bool negative = r < 0;
  const int32_t size = negative ? -r : r;
  const size_t row = row_of(k);
  const Code code = tables.y_codes[row * kYCodes + static_cast<size_t>(size < kYCodes ? size : kYCodes - 1)];
  if (code & kEscapeCode) push_escape(state, static_cast<uint32_t>(size - tables.y_escape[row]));
  spill(x, frequency(code), state.words);
  return encode_step(x, frequency(code), first_slot(code) + negative, size != 0 ? 2 : 1);
}

// An escape's value tells the side by its lowest bit: t - escape above the table, -1 - t below it, of t = z - low.
static inline void push_z_escape(EncoderState& state, int32_t t, int32_t escape) {
  push_escape(state, static_cast<uint32_t>(t < 0 ? 2 * (-1 - t) + 1 : 2 * (t - escape)));
}

static inline uint32_t encode_z_symbol(EncoderState& state, const TableView& tables, uint32_t x, size_t channel,
                                       int32_t z) {
  const int32_t t = z - tables.by_channel.low[channel], escape = tables.by_channel.escape[channel];
  const bool inside = 0 <= t && t < escape;
  if (!inside) push_z_escape(state, t, escape);
  const Code code = tables.z_codes[channel * 256 + static_cast<size_t>(inside ? t : escape)];
  spill(x, frequency(code), state.words);
  return encode_step(x, frequency(code), first_slot(code), 1);
}

// ---- whole groups over all lanes: what a coder offers. All do what plain.h does.

// A group of one phase of n elements: `count` members. Bits from n on are 0.
template <class R>
struct YGroup {
  const uint64_t* members;
  size_t count;
  bool narrow;
  const uint8_t* k;
  R* r;
  size_t n;
};

struct Count {
  size_t narrow, wide;
  bool in_range;  // every k < kScales; if not, the rest is meaningless
};

template <class R>
struct YCoder {
  // With `clear` all other elements become 0, else they are left alone. After an error r means nothing.
  void (*decode)(DecoderState& state, const TableView& tables, const YGroup<R>& y, bool clear);
  // The same of two streams at once.
  void (*decode_two)(DecoderState* const state[2], const TableView& tables, const YGroup<R> y[2], bool clear);
  void (*encode)(EncoderState& state, const TableView& tables, const YGroup<const R>& y);
  // The first position from `at` on that is not among `coded` and has r != 0, or n; adds to `zeros` those passed.
  size_t (*next_exception)(const uint64_t* coded, const R* r, size_t at, size_t n, size_t& zeros);
};

struct Coder {
  const char* name;
  // z[i] for i < n, by the table of channel i mod channels.
  void (*decode_z)(DecoderState& state, const TableView& tables, int16_t* z, size_t n);
  void (*encode_z)(EncoderState& state, const TableView& tables, const int16_t* z, size_t n);
  // Which elements are in skip_max < k <= kLastNarrow and which above; writes blocks_of(n) words each.
  Count (*classify)(const uint8_t* k, size_t n, uint8_t skip_max, uint64_t* narrow, uint64_t* wide);
  // The element from `at` on that is not among `coded` and has `before` others of its kind before it, or n.
  size_t (*find_skipped)(const uint64_t* coded, size_t at, size_t n, uint64_t before);
  uint32_t (*crc32c)(const uint8_t* data, size_t size, uint32_t before);
  YCoder<int8_t> y8;
  YCoder<int16_t> y16;
};

}  // namespace ckbd
