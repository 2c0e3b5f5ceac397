#include "payload/tail.h"

#include <string>

#include "common/attempt.h"
#include "payload/rare.h"

namespace ckbd {

TailPart take_tail(uint64_t* members, size_t blocks, size_t count) {
  TailPart tail;
  size_t b = blocks, found = 0;
  while (found < count) found += static_cast<size_t>(__builtin_popcountll(members[--b]));
  tail.first_block = b;
  tail.blocks.assign(members + b, members + blocks);
  if (b < blocks) {
    uint64_t rest = tail.blocks[0];
    for (; found > count; --found) rest &= rest - 1;
    members[b] ^= rest;
    tail.blocks[0] = rest;
    for (++b; b < blocks; ++b) members[b] = 0;
  }
  return tail;
}

void TailDecoder::start(const DecoderState& state, size_t offset) {
  uint8_t* end = bytes_;
  for (size_t lane = 1; lane <= state.lane_mask; ++lane) {
    const uint32_t x = state.x[lane];
    if (x >= 2 * kLow) {
      throw StreamError("tail", offset,
                        "lane " + std::to_string(lane) + " holds no word, its state is " + std::to_string(x));
    }
    *end++ = static_cast<uint8_t>(x);
    *end++ = static_cast<uint8_t>(x >> 8);
  }
  words_ = {bytes_, end, end, "tail", offset};
}

template <class R>
void TailDecoder::decode(DecoderState& state, const TableView& tables, const TailPart& part, const uint8_t* k, R* r) {
  uint32_t x = state.x[0];
  // One lane has nothing to do while it waits, so here guesses pay: that the symbol is 0, which needs no look-up, and
  // that it needs no word. Where the tail is long both are nearly always right.
  part.for_each([&](size_t at) {
    const uint32_t s = x & (kSlots - 1), zeros = frequency(tables.y_codes[row_of(k[at]) * kYCodes]);
    const uint32_t before = x;
    int32_t symbol = 0;
    if (s < zeros) {
      x = zeros * (x >> kTableBits) + s;
    } else {
      symbol = decode_y_step(x, tables.y_rows[row_of(k[at])]);
    }
    if (x < kLow && !refill(x, words_)) {
      throw StreamError(words_.field, words_.end_offset, "a symbol needs a word, and there is none left");
    }
    if (symbol == kEscapeSymbol && !escaped(state, tables, false, k[at], before, &symbol)) settle(state.rare->error);
    r[at] = static_cast<R>(symbol);
  });
  state.x[0] = x;
}

template void TailDecoder::decode(DecoderState&, const TableView&, const TailPart&, const uint8_t*, int8_t*);
template void TailDecoder::decode(DecoderState&, const TableView&, const TailPart&, const uint8_t*, int16_t*);

void TailDecoder::finish() const {
  if (words_.next == words_.end) return;
  throw StreamError("tail", words_.end_offset,
                    "does not read " + std::to_string((words_.end - words_.next) / 2) + " of the words in the lanes");
}

}  // namespace ckbd
