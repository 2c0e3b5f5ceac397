// rANS with interleaved lanes, and the tables it codes with. docs/format.md, section 4, is the definition.
//
// What surprises first:
//
// - A rANS state is a stack of symbols. The decoder runs forwards, so the encoder runs backwards over the
//   same symbols, and fills the list of words from its last to its first.
// - All lanes share one list of words, and nothing says which word is whose. It follows: symbol i of a group
//   is in lane i mod L, and a lane takes the next word when its state falls below 2^16, so words come in the
//   order of the symbols that need them. Steps of different lanes do not wait for one another: that is what
//   lanes are for.
// - A y table is symmetric, so +m and -m share one interval of slots: the even ones say +m, the odd ones -m.
// - The functions are static. Other files will compile this header for other instruction sets; of an inline
//   function with external linkage the linker keeps one copy, which may then run where its set is missing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ckbd {

constexpr uint32_t kTableBits = 12;
constexpr uint32_t kSlots = 1u << kTableBits;
constexpr uint32_t kLow = 1u << 16;  // states live in [kLow, 2^32)
constexpr int kMaxLanesLog2 = 5;
constexpr int kMaxLanes = 1 << kMaxLanesLog2;
constexpr int kMaxSkip = 15;
constexpr int kMaxLowBits = 24;        // of the gap before an exception
constexpr int kMaxMagnitudeBits = 15;  // of its size, below the leading one
constexpr int kScales = 64;      // y tables
constexpr int kLastNarrow = 22;  // tables up to this one have at most ...
constexpr int kNarrowMax = 6;    // ... this many sizes besides 0 and the escape
constexpr int kMaxSize = 126;    // and all others at most this many
constexpr int kMaxZSize = 255;

// One distribution. Interval m is the slots from start[m] on. In a y table it belongs to +m and -m, which
// have frequency freq[m] each; in a z table to the symbol low + m. Interval `escape` is the last.
struct Table {
  uint8_t slot[kSlots];  // the interval that owns a slot
  uint16_t freq[256];    // 1 .. 4095
  uint16_t start[256];
  int32_t escape;
  int32_t low;
};

// The elements of a phase that form one group: first <= k <= last.
struct Group {
  uint8_t first, last;
};

static inline bool contains(Group group, uint8_t k) { return group.first <= k && k <= group.last; }

// Words still to be read, [next, end), and what to say when there are none. A loop keeps its own copy: that
// can live in registers, while a pointer in memory costs each symbol the wait for the last one's store.
struct Words {
  const uint8_t* next;
  const uint8_t* end;
  const char* field;
  size_t end_offset;
};

// Escape values still to be read: `left` varints in [next, end).
struct Escapes {
  const uint8_t* next;
  const uint8_t* end;
  const uint8_t* payload;
  uint32_t left;
};

struct DecoderState {
  uint32_t x[kMaxLanes];
  size_t lane_mask;  // L - 1
  Words words;
  Escapes escapes;
};

struct EncoderState {
  uint32_t x[kMaxLanes];
  size_t lane_mask;
  uint8_t* words;                  // the last word put out; the next one goes below it
  std::vector<uint32_t>* escapes;  // last symbol first
};

// The rare ways out of a step (decode.cpp, encode.cpp). They throw StreamError for what the format forbids.
[[noreturn]] void throw_no_words(Words words);
int32_t escaped_y(Escapes& escapes, int32_t size, bool negative);
int32_t escaped_z(Escapes& escapes, const Table& table);
void push_escape(EncoderState& state, uint32_t value);

// ---- one lane, decoding

// If x < 2^16: x = 2^16 x + the next word. One word is enough, since no step leaves x below 16: it starts
// from x >= 2^16, and f (x >> 12) + bias >= x >> 12 >= 16.
static inline void refill(uint32_t& x, Words& words) {
  const bool take = x < kLow;
  if (words.next == words.end) {
    if (take) throw_no_words(words);
    return;
  }
  // There is a word, so it may be loaded whether or not it is needed. Which symbols need one is as good as
  // random, so a select costs less than a branch.
  const uint32_t word = words.next[0] | uint32_t{words.next[1]} << 8;
  x = take ? x << 16 | word : x;
  words.next += take ? 2 : 0;
}

// x = f (x >> 12) + bias, with the interval of y's slot s = x & 4095 starting at S = start[m]:
//   m = 0    one symbol,  f = f_0, bias = s - S, as in any rANS;
//   m >= 1   two symbols, d = s - S runs over [0, 2 f_m): sign d & 1, bias d >> 1 in [0, f_m).
static inline int32_t decode_y_symbol(uint32_t& x, const Table& table, Words& words, Escapes& escapes) {
  const uint32_t s = x & (kSlots - 1);
  const uint32_t m = table.slot[s];
  const uint32_t d = s - table.start[m];
  const uint32_t paired = m != 0;
  const bool negative = d & paired;
  x = table.freq[m] * (x >> kTableBits) + (d >> paired);
  refill(x, words);
  const int32_t size = static_cast<int32_t>(m);
  if (size == table.escape) return escaped_y(escapes, size, negative);
  return negative ? -size : size;
}

static inline int32_t decode_z_symbol(uint32_t& x, const Table& table, Words& words, Escapes& escapes) {
  const uint32_t s = x & (kSlots - 1);
  const uint32_t m = table.slot[s];
  x = table.freq[m] * (x >> kTableBits) + s - table.start[m];
  refill(x, words);
  if (static_cast<int32_t>(m) == table.escape) return escaped_z(escapes, table);
  return table.low + static_cast<int32_t>(m);
}

// ---- one lane, encoding: the steps above undone, in reverse order

// Puts out a word if the step for frequency f would else need more than 32 bits. The step leads from x to
// 2^12 (x / f) + slot, which is below 2^32 if x < 2^20 f (itself below 2^32, since f <= 4095); with a word
// gone x is below 2^16 <= 2^20 f. Either way x >= 16 f (2^16 >= 16 f, and 2^20 f >> 16 = 16 f), so the step
// leads to 2^16 or above. The decoder's step undoes it and finds x < 2^16 exactly if a word is gone, and
// takes that word.
static inline void spill(uint32_t& x, uint32_t f, uint8_t*& words) {
  const bool give = x >= f << 20;
  // Written always, kept if needed; the caller has room for one word more than there are symbols.
  words[-2] = static_cast<uint8_t>(x);
  words[-1] = static_cast<uint8_t>(x >> 8);
  words -= give ? 2 : 0;
  x = give ? x >> 16 : x;
}

// Undoes x = f (x >> 12) + bias: x / f goes back above the table's bits, and bias = x % f picks the slot.
static inline uint32_t encode_y_symbol(EncoderState& state, uint32_t x, const Table& table, int32_t r) {
  const bool negative = r < 0;
  const int32_t size = negative ? -r : r;
  const int32_t m = size < table.escape ? size : table.escape;
  if (m == table.escape) push_escape(state, static_cast<uint32_t>(size - m));
  const uint32_t f = table.freq[m];
  const uint32_t paired = m != 0;
  spill(x, f, state.words);
  const uint32_t quotient = x / f, bias = x - quotient * f;
  return (quotient << kTableBits) + table.start[m] + (bias << paired) + negative;
}

// An escape's value tells the side by its lowest bit: t - size above the table, -1 - t below it.
static inline uint32_t encode_z_symbol(EncoderState& state, uint32_t x, const Table& table, int32_t z) {
  const int32_t t = z - table.low;
  const bool inside = 0 <= t && t < table.escape;
  const int32_t m = inside ? t : table.escape;
  if (!inside) push_escape(state, static_cast<uint32_t>(t < 0 ? 2 * (-1 - t) + 1 : 2 * (t - table.escape)));
  const uint32_t f = table.freq[m];
  spill(x, f, state.words);
  const uint32_t quotient = x / f, bias = x - quotient * f;
  return (quotient << kTableBits) + table.start[m] + bias;
}

// ---- whole groups over all lanes. Each instruction set offers these four; the scalar ones define the bytes.

namespace scalar {

// z[i] for i < n, by the table of channel i mod channels.
void decode_z(DecoderState& state, const Table* tables, size_t channels, int16_t* z, size_t n);

// The first `count` members of the group among n elements, each by table k; there are at least as many.
// Returns the position after the last of them. Elements outside the group are left alone.
size_t decode_y(DecoderState& state, const Table* tables, Group group, const uint8_t* k, int16_t* r, size_t n,
                size_t count);

void encode_z(EncoderState& state, const Table* tables, size_t channels, const int16_t* z, size_t n);

// The members of the group among the first n elements, of which there are `count`.
void encode_y(EncoderState& state, const Table* tables, Group group, const uint8_t* k, const int16_t* r,
              size_t n, size_t count);

}  // namespace scalar
}  // namespace ckbd
