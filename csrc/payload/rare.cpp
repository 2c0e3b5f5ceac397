#include "payload/rare.h"

#include <algorithm>

#include "common/attempt.h"
#include "payload/bits.h"
#include "rans/members.h"

namespace ckbd {
namespace {

int32_t escaped_y(const TableView& tables, Rare& rare, uint32_t k, uint32_t slot) {
  const uint32_t escape = tables.y_escape[row_of(k)];
  const size_t offset = rare.escapes.offset();
  const int64_t size = int64_t{escape} + rare.escapes.take();
  // The escape's slots are the last ones, as many for each sign; odd ones say -.
  const bool negative = (slot - first_slot(tables.y_codes[row_of(k) * kYCodes + escape])) & 1;
  return fit(negative ? -size : size, rare.largest, "escapes", offset);
}

int32_t escaped_z(const TableView& tables, Rare& rare, uint32_t channel) {
  const size_t offset = rare.escapes.offset();
  const int64_t u = rare.escapes.take();
  const int32_t low = tables.by_channel.low[channel];
  return fit(u % 2 ? low - 1 - u / 2 : low + tables.by_channel.escape[channel] + u / 2, INT16_MAX, "escapes", offset);
}

}  // namespace

void turn_page(Words& words, uint8_t* page) {
  const size_t left = static_cast<size_t>(words.end - words.next);
  std::copy_n(words.next, left, page);
  std::fill(page + left, page + sizeof Rare::page, uint8_t{0});
  words.next = page;
  words.end = words.safe = page + left;
}

bool no_words(DecoderState& state) {
  state.rare->error = std::make_exception_ptr(
      StreamError(state.words.field, state.words.end_offset, "a symbol needs a word, and there is none left"));
  return false;
}

bool escaped(DecoderState& state, const TableView& tables, bool is_z, uint32_t table, uint32_t x, int32_t* symbol) {
  Rare& rare = *state.rare;
  attempt(rare.error, [&] {
    const uint32_t slot = x & (kSlots - 1);
    *symbol = is_z ? escaped_z(tables, rare, table) : escaped_y(tables, rare, table, slot);
  });
  return !rare.error;
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
    int32_t symbol = 0;
    if (!escaped(state, tables, is_z, step.table[lane], step.slot[lane], &symbol)) return false;
    attempt(state.rare->error, [&] { state.rare->found.push_back({step.first + lane, symbol}); });
    if (state.rare->error) return false;
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

}  // namespace ckbd
