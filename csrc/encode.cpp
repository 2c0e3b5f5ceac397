// Encoding, backwards: the last symbol of the last phase goes first.
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <utility>

#include "payload.h"

namespace ckbd {
namespace {

void put_varint(std::vector<uint8_t>& out, uint32_t value) {
  for (; value >= 128; value >>= 7) out.push_back(static_cast<uint8_t>(value | 128));
  out.push_back(static_cast<uint8_t>(value));
}

// Numbers of given width to bytes, least significant bit first.
class BitWriter {
 public:
  explicit BitWriter(std::vector<uint8_t>& out) : out_(out) {}
  void put(uint32_t value, int width) {
    held_ |= uint64_t{value} << count_;  // fewer than 8 bits wait, so 39 at most
    for (count_ += width; count_ >= 8; count_ -= 8, held_ >>= 8) out_.push_back(static_cast<uint8_t>(held_));
  }
  void put_unary(uint64_t ones) {
    for (; ones > 0; --ones) put(1, 1);
    put(0, 1);
  }
  void pad() {
    if (count_ > 0) out_.push_back(static_cast<uint8_t>(held_));
  }

 private:
  std::vector<uint8_t>& out_;
  uint64_t held_ = 0;
  int count_ = 0;
};

// What is left of a group: `count` members before position `end`.
struct Rest {
  size_t end, count;
};

struct Tail {
  bool enough;  // the phase had symbols for L - 1 words
  size_t symbols;
  Rest narrow, wide;
};

Rest whole(Group group, const Phase& phase) { return {phase.n, count(group, phase.k, phase.n)}; }

// Encodes the last symbols of the phase with lane 0 alone, until it has put out the L - 1 words that become
// the starting states of the other lanes.
Tail encode_tail(EncoderState& state, const Tables& tables, Coded groups, const Phase& phase) {
  Tail tail{false, 0, whole(groups.narrow, phase), whole(groups.wide, phase)};
  uint8_t bytes[2 * kMaxLanes];  // for at most kMaxLanes - 1 words, and one more as spill() asks
  uint8_t* const top = bytes + sizeof bytes;
  uint8_t* const full = top - 2 * state.lane_mask;
  uint8_t* const payload_words = state.words;
  state.words = top;
  state.x[0] = kLow;
  const auto back = [&](Group group, Rest& rest) {
    while (rest.count > 0 && state.words != full) {
      const size_t at = --rest.end;
      if (!contains(group, phase.k[at])) continue;
      state.x[0] = encode_y_symbol(state, state.x[0], tables.y[phase.k[at]], phase.r[at]);
      --rest.count;
      ++tail.symbols;
    }
  };
  back(groups.wide, tail.wide);
  back(groups.narrow, tail.narrow);
  tail.enough = state.words == full;
  state.words = payload_words;
  // Lane 1 gets the word that went out last, which is the one that the decoder wants first.
  for (size_t lane = 1; tail.enough && lane <= state.lane_mask; ++lane) {
    const uint8_t* word = full + 2 * (lane - 1);
    state.x[lane] = kLow | word[0] | uint32_t{word[1]} << 8;
  }
  return tail;
}

void put_states(std::vector<uint8_t>& out, const EncoderState& state) {
  BitWriter bits(out);
  for (size_t lane = 0; lane <= state.lane_mask; ++lane) {
    uint32_t e = 0;
    while (state.x[lane] >> (16 + e) != 1) ++e;
    bits.put(e, 4);
    bits.put(state.x[lane] - (kLow << e), static_cast<int>(16 + e));
  }
  bits.pad();
}

// Golomb-Rice code of the gaps between exceptions, with the b that makes this list shortest.
void put_exceptions(std::vector<uint8_t>& out, Group group, const Phase& phase) {
  std::vector<std::pair<uint32_t, int32_t>> exceptions;  // gap, r
  uint32_t gap = 0;
  for (size_t j = 0; j < phase.n; ++j) {
    if (!contains(group, phase.k[j])) continue;
    if (phase.r[j] == 0) {
      ++gap;
    } else {
      exceptions.push_back({gap, phase.r[j]});
      gap = 0;
    }
  }
  put_varint(out, static_cast<uint32_t>(exceptions.size()));
  if (exceptions.empty()) return;
  int low_bits = 0;
  uint64_t least = UINT64_MAX;
  for (int b = 0; b <= kMaxLowBits; ++b) {
    uint64_t bits = 0;
    for (const auto& exception : exceptions) bits += (exception.first >> b) + static_cast<uint64_t>(b);
    if (bits >= least) continue;
    least = bits;
    low_bits = b;
  }
  out.push_back(static_cast<uint8_t>(low_bits));
  BitWriter bits(out);
  for (const auto& [before, r] : exceptions) {
    bits.put_unary(before >> low_bits);
    bits.put(before & ((1u << low_bits) - 1), low_bits);
    bits.put(r < 0, 1);
    const uint32_t size = static_cast<uint32_t>(std::abs(r));
    int m = 0;
    while (size >> (m + 1)) ++m;
    bits.put_unary(static_cast<uint64_t>(m));
    bits.put(size - (1u << m), m);
  }
  bits.pad();
}

}  // namespace

void push_escape(EncoderState& state, uint32_t value) { state.escapes->push_back(value); }

Encoded encode(const Tables& tables, const int16_t* z, size_t n_z, const std::vector<Phase>& phases,
               int lanes_log2, int skip_max) {
  const Coded groups = coded(skip_max);
  size_t symbols = n_z;
  for (const Phase& phase : phases) {
    symbols += count(groups.narrow, phase.k, phase.n) + count(groups.wide, phase.k, phase.n);
  }
  // A symbol puts out at most one word; spill() asks for one more.
  const size_t room = 2 * (symbols + 1);
  const std::unique_ptr<uint8_t[]> words(new uint8_t[room]);
  std::vector<uint32_t> escapes;
  EncoderState state{};
  state.words = words.get() + room;
  state.escapes = &escapes;

  Tail tail{};
  // A single lane needs no words from the tail, so this ends.
  for (;; --lanes_log2) {
    state.lane_mask = (size_t{1} << lanes_log2) - 1;
    tail = encode_tail(state, tables, groups, phases.back());
    if (tail.enough) break;
    escapes.clear();
  }
  for (size_t p = phases.size(); p-- > 0;) {
    const Phase& phase = phases[p];
    const bool last = p + 1 == phases.size();
    const Rest wide = last ? tail.wide : whole(groups.wide, phase);
    const Rest narrow = last ? tail.narrow : whole(groups.narrow, phase);
    scalar::encode_y(state, tables.y.data(), groups.wide, phase.k, phase.r, wide.end, wide.count);
    scalar::encode_y(state, tables.y.data(), groups.narrow, phase.k, phase.r, narrow.end, narrow.count);
  }
  scalar::encode_z(state, tables.z.data(), tables.z.size(), z, n_z);

  Encoded out{{}, lanes_log2, tail.symbols};
  put_states(out.payload, state);
  for (const Phase& phase : phases) put_exceptions(out.payload, skipped(skip_max), phase);
  put_varint(out.payload, static_cast<uint32_t>(escapes.size()));
  std::for_each(escapes.rbegin(), escapes.rend(), [&](uint32_t value) { put_varint(out.payload, value); });
  out.payload.insert(out.payload.end(), state.words, words.get() + room);
  return out;
}

}  // namespace ckbd
