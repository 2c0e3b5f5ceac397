// Encoding, backwards: the last symbol of the last phase goes first.
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <utility>

#include "payload/payload.h"
#include "payload/survey.h"

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

struct Tail {
  bool enough;  // the phase had symbols for L - 1 words
  size_t symbols;
};

// Encodes the last symbols of the phase with lane 0 alone, until it has put out the L - 1 words that become
// the starting states of the other lanes, and takes them off the members.
template <class R>
Tail encode_tail(EncoderState& state, const TableView& tables, const Phase<R>& phase, Members& members) {
  Tail tail{false, 0};
  uint8_t bytes[2 * kMaxLanes];  // for at most kMaxLanes - 1 words, and one more as spill() asks
  uint8_t* const top = bytes + sizeof bytes;
  uint8_t* const full = top - 2 * state.lane_mask;
  uint8_t* const payload_words = state.words;
  state.words = top;
  uint32_t x = kLow;
  const auto back = [&](uint64_t* group, size_t& count) {
    for (size_t b = members.blocks; b > 0 && state.words != full; --b) {
      for (uint64_t& in = group[b - 1]; in != 0 && state.words != full;) {
        const size_t j = highest_bit(in), at = (b - 1) * kBlock + j;
        in ^= uint64_t{1} << j;
        x = encode_y_symbol(state, tables, x, once(phase.k + at), once(phase.r + at));
        --count;
        ++tail.symbols;
      }
    }
  };
  back(members.wide, members.count.wide);
  back(members.narrow, members.count.narrow);
  tail.enough = state.words == full;
  state.words = payload_words;
  state.x[0] = x;
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
    const int e = static_cast<int>(highest_bit(state.x[lane])) - 16;
    bits.put(static_cast<uint32_t>(e), 4);
    bits.put(state.x[lane] - (kLow << e), 16 + e);
  }
  bits.pad();
}

// Golomb-Rice code of the gaps between exceptions, with the b that makes this list shortest.
template <class R>
void put_exceptions(std::vector<uint8_t>& out, const Coder& coder, const uint64_t* coded, const Phase<R>& phase) {
  std::vector<std::pair<size_t, int32_t>> exceptions;  // gap, r
  size_t zeros = 0, all = 0;
  const auto next = [&](size_t at) { return y_coder<R>(coder).next_exception(coded, phase.r, at, phase.n, zeros); };
  for (size_t at = next(0); at < phase.n; at = next(at + 1)) {
    const int32_t r = once(phase.r + at);
    exceptions.push_back({zeros, r != 0 ? r : 1});  // 0 only if it was written to since
    all += std::exchange(zeros, 0);
  }
  put_varint(out, static_cast<uint32_t>(exceptions.size()));
  if (exceptions.empty()) return;
  const auto length = [&](int b) {
    uint64_t bits = 0;
    for (const auto& exception : exceptions) bits += (exception.first >> b) + static_cast<uint64_t>(b);
    return bits;
  };
  // From b to b + 1 a gap g saves g >> b less g >> (b + 1), which falls as b grows, and costs 1: the sum is convex.
  int low_bits = 0;
  while (low_bits < kMaxLowBits && all / exceptions.size() >> (low_bits + 1)) ++low_bits;
  uint64_t least = length(low_bits);
  const auto walk = [&](int by, int limit) {
    while (low_bits != limit) {
      const uint64_t bits = length(low_bits + by);
      if (by < 0 ? bits > least : bits >= least) break;
      least = bits;
      low_bits += by;
    }
  };
  walk(-1, 0);
  walk(1, kMaxLowBits);
  out.push_back(static_cast<uint8_t>(low_bits));
  BitWriter bits(out);
  for (const auto& [before, r] : exceptions) {
    bits.put_unary(before >> low_bits);
    bits.put(static_cast<uint32_t>(before & ((size_t{1} << low_bits) - 1)), low_bits);
    bits.put(r < 0, 1);
    const uint32_t size = static_cast<uint32_t>(std::abs(r));
    const int m = static_cast<int>(highest_bit(size));
    bits.put_unary(static_cast<uint64_t>(m));
    bits.put(size - (1u << m), m);
  }
  bits.pad();
}

}  // namespace

struct EscapeList {
  std::vector<uint32_t> values;  // last symbol first
};

void push_escape(EncoderState& state, uint32_t value) { state.escapes->values.push_back(value); }

namespace {

template <class R>
Encoded encode_with(const Coder& coder, const TableView& tables, const int16_t* z, size_t n_z,
                    const std::vector<Phase<R>>& phases, int lanes_log2, int skip_max) {
  static thread_local Scratch<uint8_t> words_scratch;
  static thread_local std::vector<Scratch<uint64_t>> members_scratch;
  if (members_scratch.size() < phases.size()) members_scratch.resize(phases.size());
  std::vector<Members> members;
  size_t symbols = n_z;
  for (size_t p = 0; p < phases.size(); ++p) {
    members.push_back(classify(coder, phases[p].k, phases[p].n, skip_max, members_scratch[p]));
    if (!members[p].count.in_range) throw_bad_index(p, phases[p].k, phases[p].n);
    symbols += members[p].count.narrow + members[p].count.wide;
  }
  // A symbol puts out at most one word; steps of all lanes write kStepBytes.
  const size_t room = 2 * symbols + kStepBytes;
  uint8_t* const words = words_scratch.get(room);
  EscapeList escapes;
  EncoderState state{};
  state.words = words + room;
  state.escapes = &escapes;

  const Phase<R>& last = phases.back();
  const Count coded = members.back().count;
  Tail tail{};
  // A single lane needs no words from the tail, so this ends.
  for (;; --lanes_log2) {
    state.lane_mask = (size_t{1} << lanes_log2) - 1;
    tail = encode_tail(state, tables, last, members.back());
    if (tail.enough) break;
    escapes.values.clear();
    members.back() = classify(coder, last.k, last.n, skip_max, members_scratch[phases.size() - 1]);
    // There is room for as many symbols as there were.
    const Count& again = members.back().count;
    if (!again.in_range || again.narrow + again.wide > coded.narrow + coded.wide) {
      throw std::runtime_error("k: changed during the call");
    }
  }
  for (size_t p = phases.size(); p-- > 0;) {
    const Phase<R>& phase = phases[p];
    const Members& m = members[p];
    y_coder<R>(coder).encode(state, tables, {m.wide, m.count.wide, false, phase.k, phase.r, phase.n});
    y_coder<R>(coder).encode(state, tables, {m.narrow, m.count.narrow, true, phase.k, phase.r, phase.n});
  }
  coder.encode_z(state, tables, z, n_z);

  Encoded out{{}, lanes_log2, skip_max, tail.symbols};
  const size_t size = static_cast<size_t>(words + room - state.words);
  out.payload.reserve(size + size / 8 + 1024);
  put_states(out.payload, state);
  for (size_t p = 0; p < phases.size(); ++p) put_exceptions(out.payload, coder, members[p].coded, phases[p]);
  put_varint(out.payload, static_cast<uint32_t>(escapes.values.size()));
  std::for_each(escapes.values.rbegin(), escapes.values.rend(),
                [&](uint32_t value) { put_varint(out.payload, value); });
  out.payload.insert(out.payload.end(), state.words, words + room);
  words_scratch.trim();
  for (auto& one : members_scratch) one.trim();
  return out;
}

}  // namespace

template <class R>
Encoded encode(const Coder& coder, const Tables& tables, const int16_t* z, size_t n_z,
               const std::vector<Phase<R>>& phases, Choice choice) {
  constexpr size_t kFewLanesBytes = 4096;  // below this half a byte a lane counts for more than speed
  const int skip_max = choice.skip_max >= 0 ? choice.skip_max : choose_skip_max(coder, tables, phases);
  const auto with = [&](int lanes_log2) {
    return encode_with(coder, tables.view(), z, n_z, phases, lanes_log2, skip_max);
  };
  if (choice.lanes_log2 >= 0) return with(choice.lanes_log2);
  // No sample tells the size well enough to save a second try, and it is the short ones that have two.
  Encoded made = with(kMaxLanesLog2);
  if (made.payload.size() >= kFewLanesBytes || made.lanes_log2 < kMaxLanesLog2) return made;
  return with(kMaxLanesLog2 - 1);
}

template Encoded encode(const Coder&, const Tables&, const int16_t*, size_t, const std::vector<Phase<int8_t>>&,
                        Choice);
template Encoded encode(const Coder&, const Tables&, const int16_t*, size_t, const std::vector<Phase<int16_t>>&,
                        Choice);

}  // namespace ckbd
