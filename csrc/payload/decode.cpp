// Decoding, of payloads that may come from anyone.
#include <algorithm>
#include <limits>
#include <utility>

#include "common/attempt.h"
#include "payload/payload.h"
#include "payload/rare.h"

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
      end_(payload + size),
      skip_max_(skip_max),
      tail_size_(tail),
      rare_(std::make_unique<Rare>()) {
  state_.lane_mask = (size_t{1} << lanes_log2) - 1;
  state_.rare = rare_.get();
  if (lanes_log2 == 0 && tail != 0) throw StreamError("tail", 0, "one lane has no tail");
  Lists lists = read_lists(payload, size, state_.lane_mask + 1, phases);
  std::copy_n(lists.states, state_.lane_mask + 1, state_.x);
  exceptions_ = std::move(lists.exceptions);
  rare_->escapes = lists.escapes;
  state_.words = {lists.words, end_, end_, "words", size};
  if (static_cast<size_t>(end_ - lists.words) < kStepBytes) {
    turn_page(state_.words, rare_->page);
  } else {
    state_.words.safe = end_ - kStepBytes;
  }
}

PayloadDecoder::~PayloadDecoder() = default;

// Where the next word is; the last ones are read from a copy.
size_t PayloadDecoder::word_offset() const {
  return state_.words.end_offset - static_cast<size_t>(state_.words.end - state_.words.next);
}

void PayloadDecoder::z(int16_t* z, size_t n) {
  rare_->largest = INT16_MAX;
  coder_.decode_z(state_, tables_, z, n);
  settle(rare_->error);
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
  if (tail_size_ > all) {
    throw StreamError(
        "tail", word_offset(),
        "a tail of " + std::to_string(tail_size_) + " in a phase of " + std::to_string(all) + " coded symbols");
  }
  // If the tail begins among the narrow, all wide symbols are in it: both groups can do the rest first.
  const size_t wide_tail = std::min<size_t>(tail_size_, plan.wide), narrow_tail = tail_size_ - wide_tail;
  plan.narrow_tail = take_tail(members.narrow, members.blocks, narrow_tail);
  plan.wide_tail = take_tail(members.wide, members.blocks, wide_tail);
  plan.narrow -= narrow_tail;
  plan.wide -= wide_tail;
  return plan;
}

template <class R>
void PayloadDecoder::finish_phase(const Plan& plan, const uint8_t* k, R* r) {
  if (++phase_ < exceptions_.size()) return;
  tail_.start(state_, word_offset());
  tail_.decode(state_, tables_, plan.narrow_tail, k, r);
  tail_.decode(state_, tables_, plan.wide_tail, k, r);
}

template <class R>
void decode_phases(PhaseTask<R>* tasks, size_t count) {
  static thread_local Scratch<uint64_t> scratch[2];
  PayloadDecoder::Plan plans[2];
  const auto each = [&](auto part) {
    for (size_t t = 0; t < count; ++t) {
      attempt(tasks[t].error, [&] { part(*tasks[t].decoder, tasks[t], plans[t], t); });
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
    each([&](PayloadDecoder& d, auto&, auto&, size_t) { settle(d.rare_->error); });
  };

  each([&](PayloadDecoder& d, PhaseTask<R>& task, auto& plan, size_t t) {
    plan = d.plan(task.k, task.n, std::numeric_limits<R>::max(), scratch[t]);
  });
  decode(true);
  each([&](PayloadDecoder& d, PhaseTask<R>& task, auto& plan, size_t) {
    d.exceptions_[d.phase_].apply(d.coder_, plan.members.coded, task.r, task.n, d.rare_->largest);
  });
  decode(false);
  each([&](PayloadDecoder& d, PhaseTask<R>& task, auto& plan, size_t) { d.finish_phase(plan, task.k, task.r); });
  for (auto& one : scratch) one.trim();
}

template void decode_phases(PhaseTask<int8_t>* tasks, size_t count);
template void decode_phases(PhaseTask<int16_t>* tasks, size_t count);

void PayloadDecoder::finish() {
  const EscapeValues& escapes = rare_->escapes;
  if (escapes.left > 0) {
    throw StreamError("escapes", escapes.offset(), std::to_string(escapes.left) + " escape values are left over");
  }
  const Words& words = state_.words;
  if (words.next != words.end) {
    throw StreamError("words", word_offset(), std::to_string((words.end - words.next) / 2) + " words are left over");
  }
  tail_.finish();
  if (state_.x[0] != kLow) {
    throw StreamError("end state", words.end_offset,
                      "lane 0 ends at " + std::to_string(state_.x[0]) + ", not at 65536");
  }
}

}  // namespace ckbd
