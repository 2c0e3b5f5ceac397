// Decoding, of payloads that may come from anyone.
#include <algorithm>

#include "payload.h"

namespace ckbd {
namespace {

uint32_t read_varint(const char* field, const uint8_t* payload, const uint8_t*& next, const uint8_t* end) {
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

// A symbol from outside, as the int16 that the arrays hold.
int16_t fit(int64_t value, const char* field, size_t offset) {
  if (value < INT16_MIN || value > INT16_MAX) {
    throw StreamError(field, offset, "a symbol of " + std::to_string(value) + " is outside int16");
  }
  return static_cast<int16_t>(value);
}

uint32_t read_escape(Escapes& escapes) {
  if (escapes.left == 0) {
    throw StreamError("escapes", static_cast<size_t>(escapes.end - escapes.payload),
                      "more symbols are escapes than there are escape values");
  }
  --escapes.left;
  return read_varint("escapes", escapes.payload, escapes.next, escapes.end);
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
Exception read_exception(BitReader& bits, int low_bits) {
  const uint64_t high = bits.unary();
  const uint64_t gap = high << low_bits | bits.get(low_bits);
  const bool negative = bits.get(1);
  const uint64_t m = bits.unary();
  if (m > kMaxMagnitudeBits) bits.refuse("the size of an exception is 2^16 or more");
  const int64_t size = int64_t{1} << m | bits.get(static_cast<int>(m));
  return {gap, negative ? -size : size};
}

}  // namespace

void throw_no_words(Words words) {
  throw StreamError(words.field, words.end_offset, "a symbol needs a word, and there is none left");
}

int32_t escaped_y(Escapes& escapes, int32_t size, bool negative) {
  const size_t offset = static_cast<size_t>(escapes.next - escapes.payload);
  const int64_t whole = size + int64_t{read_escape(escapes)};
  return fit(negative ? -whole : whole, "escapes", offset);
}

int32_t escaped_z(Escapes& escapes, const Table& table) {
  const size_t offset = static_cast<size_t>(escapes.next - escapes.payload);
  const int64_t u = read_escape(escapes);
  return fit(u % 2 ? table.low - 1 - u / 2 : table.low + table.escape + u / 2, "escapes", offset);
}

PayloadDecoder::PayloadDecoder(const Tables& tables, const uint8_t* payload, size_t size, int lanes_log2,
                               int skip_max, uint32_t tail, int phases)
    : tables_(tables),
      payload_(payload),
      end_(payload + size),
      next_(payload),
      skip_max_(skip_max),
      tail_(tail) {
  state_.lane_mask = (size_t{1} << lanes_log2) - 1;
  if (lanes_log2 == 0 && tail != 0) throw StreamError("tail", 0, "one lane has no tail");
  read_states();
  read_exceptions(phases);
  read_escapes();
  if ((end_ - next_) % 2) throw StreamError("words", size - 1, "half a word at the end");
  state_.words = {next_, end_, "words", size};
}

void PayloadDecoder::read_states() {
  BitReader bits("lane states", payload_, next_, end_);
  for (size_t lane = 0; lane <= state_.lane_mask; ++lane) {
    const int e = static_cast<int>(bits.get(4));
    state_.x[lane] = (kLow << e) + bits.get(16 + e);
  }
  bits.finish();
}

// The lists are walked here so that the words can be found, and walked again when their phase is decoded: nothing
// is allocated for them.
void PayloadDecoder::read_exceptions(int phases) {
  for (int p = 0; p < phases; ++p) {
    const uint32_t left = read_varint("exceptions", payload_, next_, end_);
    int low_bits = 0;
    if (left > 0) {
      if (next_ == end_) throw StreamError("exceptions", offset(next_), "the payload ends before b");
      low_bits = *next_++;
      if (low_bits > kMaxLowBits) {
        throw StreamError("exceptions", offset(next_) - 1, "b is " + std::to_string(low_bits) + ", more than 24");
      }
    }
    exceptions_.push_back({next_, left, low_bits});
    // Each takes three bits at least, so a false count soon meets the end of the payload.
    BitReader bits("exceptions", payload_, next_, end_);
    for (uint32_t i = 0; i < left; ++i) read_exception(bits, low_bits);
    bits.finish();
  }
}

void PayloadDecoder::read_escapes() {
  const size_t at = offset(next_);
  const uint32_t left = read_varint("escapes", payload_, next_, end_);
  if (left > static_cast<size_t>(end_ - next_)) {
    throw StreamError("escapes", at, std::to_string(left) + " escape values do not fit into the payload");
  }
  state_.escapes = {next_, nullptr, payload_, left};
  for (uint32_t i = 0; i < left; ++i) read_varint("escapes", payload_, next_, end_);
  state_.escapes.end = next_;
}

void PayloadDecoder::z(int16_t* z, size_t n) {
  scalar::decode_z(state_, tables_.z.data(), tables_.z.size(), z, n);
}

void PayloadDecoder::apply_exceptions(Exceptions exceptions, const uint8_t* k, int16_t* r, size_t n) {
  const Group group = skipped(skip_max_);
  BitReader bits("exceptions", payload_, exceptions.next, end_);
  size_t at = 0;
  for (; exceptions.left > 0; --exceptions.left, ++at) {
    const size_t where = offset(exceptions.next);
    const Exception exception = read_exception(bits, exceptions.low_bits);
    for (uint64_t gap = exception.gap;; ++at) {
      if (at == n) {
        throw StreamError("exceptions", where, "an exception lies beyond the skipped elements of its phase");
      }
      if (contains(group, k[at]) && gap-- == 0) break;
    }
    r[at] = fit(exception.r, "exceptions", where);
  }
}

void PayloadDecoder::start_tail() {
  uint8_t* end = tail_bytes_;
  for (size_t lane = 1; lane <= state_.lane_mask; ++lane) {
    const uint32_t x = state_.x[lane];
    if (x >= 2 * kLow) {
      throw StreamError("tail", offset(state_.words.next),
                        "lane " + std::to_string(lane) + " holds no word, its state is " + std::to_string(x));
    }
    *end++ = static_cast<uint8_t>(x);
    *end++ = static_cast<uint8_t>(x >> 8);
  }
  tail_words_ = {tail_bytes_, end, "tail", offset(state_.words.next)};
}

void PayloadDecoder::phase(const uint8_t* k, int16_t* r, size_t n) {
  std::fill_n(r, n, int16_t{0});
  apply_exceptions(exceptions_[phase_++], k, r, n);

  const bool last = phase_ == exceptions_.size();
  const Coded groups = coded(skip_max_);
  const size_t narrow = count(groups.narrow, k, n), wide = count(groups.wide, k, n);
  const size_t tail = last ? tail_ : 0;
  if (tail > narrow + wide) {
    throw StreamError("tail", offset(state_.words.next),
                      "a tail of " + std::to_string(tail) + " in a phase of " +
                          std::to_string(narrow + wide) + " coded symbols");
  }
  const size_t wide_tail = std::min(tail, wide), narrow_tail = tail - wide_tail;
  // If the tail begins among the narrow, all wide symbols are in it: both groups can do the rest first.
  const size_t narrow_end =
      scalar::decode_y(state_, tables_.y.data(), groups.narrow, k, r, n, narrow - narrow_tail);
  const size_t wide_end = scalar::decode_y(state_, tables_.y.data(), groups.wide, k, r, n, wide - wide_tail);
  if (!last) return;

  start_tail();
  const auto decode_tail = [&](Group group, size_t at, size_t left) {
    for (; left > 0; ++at) {
      if (!contains(group, k[at])) continue;
      const int32_t symbol = decode_y_symbol(state_.x[0], tables_.y[k[at]], tail_words_, state_.escapes);
      r[at] = static_cast<int16_t>(symbol);
      --left;
    }
  };
  decode_tail(groups.narrow, narrow_end, narrow_tail);
  decode_tail(groups.wide, wide_end, wide_tail);
}

void PayloadDecoder::finish() {
  const Escapes& escapes = state_.escapes;
  if (escapes.left > 0) {
    throw StreamError("escapes", offset(escapes.next),
                      std::to_string(escapes.left) + " escape values are left over");
  }
  const Words& words = state_.words;
  if (words.next != words.end) {
    throw StreamError("words", offset(words.next),
                      std::to_string((words.end - words.next) / 2) + " words are left over");
  }
  if (tail_words_.next != tail_words_.end) {
    throw StreamError("tail", tail_words_.end_offset,
                      "does not read " + std::to_string((tail_words_.end - tail_words_.next) / 2) +
                          " of the words in the lanes");
  }
  if (state_.x[0] != kLow) {
    throw StreamError("end state", offset(end_),
                      "lane 0 ends at " + std::to_string(state_.x[0]) + ", not at 65536");
  }
}

}  // namespace ckbd
