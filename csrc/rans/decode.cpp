// Decoding, of payloads that may come from anyone.
#include <algorithm>
#include <exception>
#include <limits>
#include <utility>

#include "rans/bits.h"
#include "rans/payload.h"
#include "rans/rare.h"

namespace ckbd {

void throw_bad_index(size_t phase, const uint8_t* k, size_t n) {
  for (size_t at = 0; at < n; ++at) {
    const uint8_t one = once(k + at);
    if (one >= kScales) throw BadIndex{one, phase, at};
  }
  throw std::runtime_error("k: changed during the call");
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
    const uint32_t s = x & (kSlots - 1), zeros = frequency(tables_.y_codes[row_of(k[at]) * kYCodes]);
    const uint32_t before = x;
    int32_t symbol = 0;
    if (s < zeros) {
      x = zeros * (x >> kTableBits) + s;
    } else {
      symbol = decode_y_step(x, tables_.y_rows[row_of(k[at])]);
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
