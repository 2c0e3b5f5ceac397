// Decoding, of payloads that may come from anyone.
#include <algorithm>
#include <exception>
#include <limits>
#include <utility>

#include "rans/payload.h"

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

// A symbol from outside, if the array has room for it: -largest - 1 .. largest.
int32_t fit(int64_t value, int32_t largest, const char* field, size_t offset) {
  if (value < -int64_t{largest} - 1 || value > largest) {
    throw StreamError(
        field, offset,
        "a symbol of " + std::to_string(value) + " is outside " + (largest == INT8_MAX ? "int8" : "int16"));
  }
  return static_cast<int32_t>(value);
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

// ---- the rare ways out of a loop

struct Rare {
  // Escape values still to be read: `left` varints in [next, end).
  const uint8_t* payload = nullptr;
  const uint8_t* next = nullptr;
  const uint8_t* end = nullptr;
  uint32_t left = 0;
  int32_t largest = INT16_MAX;  // that the array of symbols holds
  std::vector<Escaped> found, taken;
  std::exception_ptr error;
  uint8_t page[2 * kStepBytes];  // the last words, fewer than kStepBytes: a step that begins at their end still fits
};

namespace {

uint32_t read_escape(Rare& rare) {
  if (rare.left == 0) {
    throw StreamError("escapes", static_cast<size_t>(rare.end - rare.payload),
                      "more symbols are escapes than there are escape values");
  }
  --rare.left;
  return read_varint("escapes", rare.payload, rare.next, rare.end);
}

int32_t escaped_y(const TableView& tables, Rare& rare, uint32_t k, uint32_t slot) {
  const uint32_t escape = tables.y_escape[k];
  const size_t offset = static_cast<size_t>(rare.next - rare.payload);
  const int64_t size = int64_t{escape} + read_escape(rare);
  // The escape's slots are the last ones, as many for each sign; odd ones say -.
  const bool negative = (slot - first_slot(tables.y_codes[size_t{k} * kYCodes + escape])) & 1;
  return fit(negative ? -size : size, rare.largest, "escapes", offset);
}

int32_t escaped_z(const TableView& tables, Rare& rare, uint32_t channel) {
  const size_t offset = static_cast<size_t>(rare.next - rare.payload);
  const int64_t u = read_escape(rare);
  const int32_t low = tables.by_channel.low[channel];
  return fit(u % 2 ? low - 1 - u / 2 : low + tables.by_channel.escape[channel] + u / 2, INT16_MAX, "escapes", offset);
}

// The last words go where a whole step may be loaded from any of them.
void turn_page(Words& words, uint8_t* page) {
  const size_t left = static_cast<size_t>(words.end - words.next);
  std::copy_n(words.next, left, page);
  std::fill(page + left, page + sizeof Rare::page, uint8_t{0});
  words.next = page;
  words.end = words.safe = page + left;
}

}  // namespace

bool no_words(DecoderState& state) {
  state.rare->error = std::make_exception_ptr(
      StreamError(state.words.field, state.words.end_offset, "a symbol needs a word, and there is none left"));
  return false;
}

bool escaped(DecoderState& state, const TableView& tables, bool is_z, uint32_t table, uint32_t x, int32_t* symbol) {
  try {
    const uint32_t slot = x & (kSlots - 1);
    *symbol = is_z ? escaped_z(tables, *state.rare, table) : escaped_y(tables, *state.rare, table, slot);
    return true;
  } catch (...) {
    state.rare->error = std::current_exception();
    return false;
  }
}

bool finish_step(DecoderState& state, const TableView& tables, bool is_z, const Step& step) {
  Words& words = state.words;
  // If the words did not last: the first lane that took one which was not there. Lanes before it had their escapes.
  uint32_t escapes = step.escapes;
  const bool lacking = words.next > words.end;
  if (lacking) {
    uint32_t taken = step.taken;
    for (size_t there = static_cast<size_t>(words.end - step.before) / 2; there > 0; --there) taken &= taken - 1;
    escapes &= (taken & -taken) - 1;
  }
  for (; escapes != 0; escapes &= escapes - 1) {
    const size_t lane = lowest_bit(escapes);
    int32_t symbol;
    if (!escaped(state, tables, is_z, step.table[lane], step.slot[lane], &symbol)) return false;
    try {
      state.rare->found.push_back({step.first + lane, symbol});
    } catch (...) {
      state.rare->error = std::current_exception();
      return false;
    }
  }
  if (lacking) return no_words(state);
  if (words.next > words.safe) turn_page(words, state.rare->page);
  return true;
}

const Escaped* take_escapes(DecoderState& state) {
  std::vector<Escaped>& found = state.rare->found;
  if (found.empty()) return nullptr;
  state.rare->taken.swap(found);
  found.clear();
  state.rare->taken.push_back({SIZE_MAX, 0});
  return state.rare->taken.data();
}

void throw_bad_index(size_t phase, const uint8_t* k, size_t n) {
  const uint8_t* const wrong = std::find_if(k, k + n, [](uint8_t one) { return one >= kScales; });
  throw BadIndex{*wrong, phase, static_cast<size_t>(wrong - k)};
}

PayloadDecoder::PayloadDecoder(const Coder& coder, const Tables& tables, const uint8_t* payload, size_t size,
                               int lanes_log2, int skip_max, uint32_t tail, int phases)
    : coder_(coder),
      tables_(tables.view()),
      payload_(payload),
      end_(payload + size),
      next_(payload),
      skip_max_(skip_max),
      tail_(tail),
      rare_(std::make_unique<Rare>()) {
  state_.lane_mask = (size_t{1} << lanes_log2) - 1;
  state_.rare = rare_.get();
  if (lanes_log2 == 0 && tail != 0) throw StreamError("tail", 0, "one lane has no tail");
  read_states();
  read_exceptions(phases);
  read_escapes();
  const size_t left = static_cast<size_t>(end_ - next_);
  if (left % 2) throw StreamError("words", size - 1, "half a word at the end");
  state_.words = {next_, end_, end_, "words", size};
  if (left < kStepBytes) {
    turn_page(state_.words, rare_->page);
  } else {
    state_.words.safe = end_ - kStepBytes;
  }
}

PayloadDecoder::~PayloadDecoder() = default;

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
  rare_->payload = payload_;
  rare_->next = next_;
  rare_->left = left;
  for (uint32_t i = 0; i < left; ++i) read_varint("escapes", payload_, next_, end_);
  rare_->end = next_;
}

// Where the next word is; the last ones are read from a copy.
size_t PayloadDecoder::word_offset() const {
  return state_.words.end_offset - static_cast<size_t>(state_.words.end - state_.words.next);
}

// Throws what a loop has kept.
void PayloadDecoder::settle() {
  if (rare_->error) std::rethrow_exception(std::exchange(rare_->error, nullptr));
}

void PayloadDecoder::z(int16_t* z, size_t n) {
  rare_->largest = INT16_MAX;
  coder_.decode_z(state_, tables_, z, n);
  settle();
}

template <class R>
void PayloadDecoder::apply_exceptions(const Plan& plan, R* r, size_t n) {
  Exceptions& exceptions = exceptions_[phase_];
  BitReader bits("exceptions", payload_, exceptions.next, end_);
  size_t at = 0;
  for (; exceptions.left > 0; --exceptions.left, ++at) {
    const size_t where = offset(exceptions.next);
    const Exception exception = read_exception(bits, exceptions.low_bits);
    at = coder_.find_skipped(plan.members.coded, at, n, exception.gap);
    if (at == n) {
      throw StreamError("exceptions", where, "an exception lies beyond the skipped elements of its phase");
    }
    r[at] = static_cast<R>(fit(exception.r, rare_->largest, "exceptions", where));
  }
}

void PayloadDecoder::start_tail() {
  uint8_t* end = tail_bytes_;
  for (size_t lane = 1; lane <= state_.lane_mask; ++lane) {
    const uint32_t x = state_.x[lane];
    if (x >= 2 * kLow) {
      throw StreamError("tail", word_offset(),
                        "lane " + std::to_string(lane) + " holds no word, its state is " + std::to_string(x));
    }
    *end++ = static_cast<uint8_t>(x);
    *end++ = static_cast<uint8_t>(x >> 8);
  }
  tail_words_ = {tail_bytes_, end, end, "tail", word_offset()};
}

PayloadDecoder::Plan PayloadDecoder::plan(const uint8_t* k, size_t n, int32_t largest, Scratch<uint64_t>& scratch) {
  rare_->largest = largest;
  Plan plan{classify(coder_, k, n, skip_max_, scratch), 0, 0, {}, {}};
  const Members& members = plan.members;
  if (!members.count.in_range) throw_bad_index(phase_, k, n);
  plan.narrow = members.count.narrow;
  plan.wide = members.count.wide;
  if (phase_ + 1 < exceptions_.size()) return plan;
  const size_t all = plan.narrow + plan.wide;
  if (tail_ > all) {
    throw StreamError(
        "tail", word_offset(),
        "a tail of " + std::to_string(tail_) + " in a phase of " + std::to_string(all) + " coded symbols");
  }
  // If the tail begins among the narrow, all wide symbols are in it: both groups can do the rest first.
  const size_t wide_tail = std::min<size_t>(tail_, plan.wide), narrow_tail = tail_ - wide_tail;
  plan.narrow_tail = take_tail(members.narrow, members.blocks, narrow_tail);
  plan.wide_tail = take_tail(members.wide, members.blocks, wide_tail);
  plan.narrow -= narrow_tail;
  plan.wide -= wide_tail;
  return plan;
}

template <class R>
void PayloadDecoder::finish_phase(const Plan& plan, const uint8_t* k, R* r) {
  if (++phase_ < exceptions_.size()) return;
  start_tail();
  uint32_t x = state_.x[0];
  // One lane has nothing to do while it waits, so here guesses pay: that the symbol is 0, which needs no look-up, and
  // that it needs no word. Where the tail is long both are nearly always right.
  const auto decode_one = [&](size_t at) {
    const uint32_t s = x & (kSlots - 1), zeros = frequency(tables_.y_codes[size_t{k[at]} * kYCodes]);
    const uint32_t before = x;
    int32_t symbol = 0;
    if (s < zeros) {
      x = zeros * (x >> kTableBits) + s;
    } else {
      symbol = decode_y_step(x, tables_.y_rows[k[at]]);
    }
    if (x < kLow && !refill(x, tail_words_)) {
      throw StreamError(tail_words_.field, tail_words_.end_offset, "a symbol needs a word, and there is none left");
    }
    if (symbol == kEscapeSymbol && !escaped(state_, tables_, false, k[at], before, &symbol)) settle();
    r[at] = static_cast<R>(symbol);
  };
  plan.narrow_tail.for_each(decode_one);
  plan.wide_tail.for_each(decode_one);
  state_.x[0] = x;
}

namespace {

// Runs a part of a task, unless an earlier one failed.
template <class R, class Part>
void attempt(PhaseTask<R>& task, Part part) {
  if (task.error) return;
  try {
    part();
  } catch (...) {
    task.error = std::current_exception();
  }
}

}  // namespace

template <class R>
void decode_phases(PhaseTask<R>* tasks, size_t count) {
  static thread_local Scratch<uint64_t> scratch[2];
  PayloadDecoder::Plan plans[2];
  const auto each = [&](auto part) {
    for (size_t t = 0; t < count; ++t) {
      attempt(tasks[t], [&] { part(*tasks[t].decoder, tasks[t], plans[t], t); });
    }
  };
  // The narrow group goes first and clears all else.
  const auto decode = [&](bool narrow) {
    YGroup<R> y[2];
    for (size_t t = 0; t < count; ++t) {
      const Members& members = plans[t].members;
      y[t] = {narrow ? members.narrow : members.wide,
              narrow ? plans[t].narrow : plans[t].wide,
              narrow,
              tasks[t].k,
              tasks[t].r,
              tasks[t].n};
    }
    // Two go together if they have the same tables.
    if (count == 2 && !tasks[0].error && !tasks[1].error &&
        tasks[0].decoder->same_coder_and_tables(*tasks[1].decoder)) {
      PayloadDecoder &a = *tasks[0].decoder, &b = *tasks[1].decoder;
      DecoderState* const states[2] = {&a.state_, &b.state_};
      y_coder<R>(a.coder_).decode_two(states, a.tables_, y, narrow);
    } else {
      each([&](PayloadDecoder& d, auto&, auto&, size_t t) {
        y_coder<R>(d.coder_).decode(d.state_, d.tables_, y[t], narrow);
      });
    }
    each([&](PayloadDecoder& d, auto&, auto&, size_t) { d.settle(); });
  };

  each([&](PayloadDecoder& d, PhaseTask<R>& task, auto& plan, size_t t) {
    plan = d.plan(task.k, task.n, std::numeric_limits<R>::max(), scratch[t]);
  });
  decode(true);
  each([&](PayloadDecoder& d, PhaseTask<R>& task, auto& plan, size_t) { d.apply_exceptions(plan, task.r, task.n); });
  decode(false);
  each([&](PayloadDecoder& d, PhaseTask<R>& task, auto& plan, size_t) { d.finish_phase(plan, task.k, task.r); });
  for (auto& one : scratch) one.trim();
}

template void decode_phases(PhaseTask<int8_t>* tasks, size_t count);
template void decode_phases(PhaseTask<int16_t>* tasks, size_t count);

void PayloadDecoder::finish() {
  if (rare_->left > 0) {
    throw StreamError("escapes", offset(rare_->next), std::to_string(rare_->left) + " escape values are left over");
  }
  const Words& words = state_.words;
  if (words.next != words.end) {
    throw StreamError("words", word_offset(), std::to_string((words.end - words.next) / 2) + " words are left over");
  }
  if (tail_words_.next != tail_words_.end) {
    throw StreamError(
        "tail", tail_words_.end_offset,
        "does not read " + std::to_string((tail_words_.end - tail_words_.next) / 2) + " of the words in the lanes");
  }
  if (state_.x[0] != kLow) {
    throw StreamError("end state", offset(end_), "lane 0 ends at " + std::to_string(state_.x[0]) + ", not at 65536");
  }
}

}  // namespace ckbd
